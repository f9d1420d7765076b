"""Turn images and recordings into verified WebDataset shards, read them back, and check them.

A data set is a folder of plain tars with an index beside each: equal input gives equal bytes, any
sample can be read in any order, and damage is an error, never a sample. Imports distgan.core and
itself; torch only inside functions of audio/ and codecs/ that need it.

codecs    images and sound as the bytes of a tar member
format    tar shards, their indexes and manifests: write and read
audio     pairs of signals: speech, noise, rooms, denoisers, alignment
sources   one file for each kind of data that can be sharded
build     `distgan shard`: run a source, write its shards
adopt     `distgan index`: index tars that other programs wrote
audit     `distgan check`: verify files and the quality of samples
"""
