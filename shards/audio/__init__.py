"""Sound and other signals in pairs: what is done to them before they are written as shards."""
