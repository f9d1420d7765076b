"""Check a data set: are the files those that were written, and are the samples fit to train on?

The audit only reads the data; its report and pictures are not part of the data set. One damaged
file does not hide another: every finding names split, shard and key. Imports distgan.core,
shards.codecs, shards.format, shards.audio and shards.sources.

command     `distgan check DATA`: run all checks, write DATA/audit/audit.json, print the table
findings    the checks with their thresholds and sources, findings, summaries
integrity   files: sha256, crc32, tar headers, indexes, manifests, SHA256SUMS
samples     read single samples of shards that may be damaged
images      checks of images: size, contrast, range, duplicates, leaks across the split
pairs       checks of pairs of signals: level, delay, SI-SDR, declared SNR, duplicates
plots       the pictures beside audit.json
"""
