"""Make tars that other programs wrote a data set: `distgan index FOLDER`.

The tars are read completely and never changed. Imports distgan.core, shards.codecs, shards.format
and shards.build.

command   the command line, dataset.json, the report
folders   the tars of a folder: which are for training, which for validation
scan      read tars once: bytes, members, headers
choose    the fields that are read, and the samples that have them
infer     find out from names and headers what a sample is
labels    the labels of samples
"""
