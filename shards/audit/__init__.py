"""Check a data set: are the files those that were written, and are the samples fit to train on?

The audit only reads the data; its report and pictures are not part of the data set. One damaged
file does not hide another: every finding names split, shard and key. Imports distgan.core,
shards.codecs, shards.format, shards.audio and shards.sources.

command           `distgan check DATA`: run all checks, write DATA/audit/audit.json, print a table
checks            the checks with their thresholds and the sources of these
findings          grade values by the checks, summarise findings
integrity         files of a data set: dataset.json, manifests, SHA256SUMS, leaks across the split
shard_integrity   one shard: sha256, index, every member's bytes and header; its single samples
images            measure images; duplicates and near-duplicates
vectors           measure vectors: values that are no numbers, constant columns, duplicates
pairs             measure pairs of signals: level, delay, SI-SDR, declared SNR; duplicates
labels            the labels: readable, samples of each class, imbalance
plots             pictures of an audit of images, and the parts shared with pairs
pair_plots        pictures of an audit of pairs
"""
