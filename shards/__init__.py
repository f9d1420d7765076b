"""Anything -> verified WebDataset shards with an index."""
