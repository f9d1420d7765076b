"""Make and align pairs of signals: pure functions of arrays and random addresses.

Equal arguments give equal arrays on every machine. Imports distgan.core and shards.codecs; torch
only in functions that run a denoiser.

pairs        pairs of sound files in two folders, or of arrays in one file
align        estimate the delay between two recordings and remove it
degrade      rooms, noise at a signal-to-noise ratio
speech       synthetic speech: a formant synthesiser and babble
corpus       speech, noises and rooms, from folders or synthetic
strength     how much a denoiser suppresses
denoise      the denoisers, by name
deepfilter3  the published DeepFilterNet3, from its package
deepfilter   DeepFilterNet with weights of the user's own
timbre_options  the options of the source timbre, and the check of their values
"""
