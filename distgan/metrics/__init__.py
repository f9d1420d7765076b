"""Distances between sets and between signals: pure functions, float64 inside.

No processes, no files, no random number without an address. Imports core.

frechet     Fréchet distance (FID, on Inception features), from features or from moments; its
            standard deviation; its limit of infinite samples
kernel      kernel distance (KID) over all pairs, with an interval
pairs       products of all pairs of rows, once for all numbers, shared out among processes
cmmd        CMMD of CLIP embeddings: another kernel
manifold    precision, recall, density, coverage; nearest training image
sliced      sliced Wasserstein distance of pixels, which needs no network
inception_score  clear and varied classes of samples alone, by a classifier
exact_sums  moments that are the same to the last bit however the samples are distributed
stft        distance of two signals' spectrograms, a metric and a loss
audio       distances of a repaired recording from the clean one
perceptual  PESQ, STOI and ESTOI, from optional packages
"""
