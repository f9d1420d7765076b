"""Run a source and write its samples as shards: `distgan shard SOURCE OUT`.

The bytes depend on the source and its options alone, not on the number of workers, kills, restarts
or tasks of a job array. Imports distgan.core, shards.format and shards.sources.

advice    what a path is that holds no data set, and which command makes one of it
command   the command line, the check of its options, the report
plan      which shard holds which samples; write missing shards; complete the set
split     choose the samples for validation
"""
