"""Encode images, sound and vectors as the bytes of a tar member, and decode them.

Decoding what was encoded gives the same values (JPEG aside); data of another size or kind raise
ValueError. Imports distgan.core; torch only to resample.

audio        WAV and FLAC; any sound file as an array
array        arrays of numbers as .npy
image        PNG, JPEG and raw .npy
image_files  what the pixels of any image file mean: the one reading of files of others
fitting      images of any size at one size
"""
