"""Make tars that other programs wrote a data set: `distgan index FOLDER`.

The tars are read completely and never changed. Imports distgan.core, shards.codecs, shards.format
and shards.build.

command   the command line, the report
folders   the tars of a folder: which are for training, which for validation
labels    the labels of samples
infer     find out from names and headers what a sample is
"""
