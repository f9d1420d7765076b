"""What sets of images are compared by: pure functions of features, float64 inside, no processes, no
files, no random numbers without an address.

frechet.py    Fréchet distance, from features or from moments; its standard deviation; its limit of
              infinite samples
kernel.py     kernel distance (KID) over all pairs, with its confidence interval
manifold.py   precision, recall, density, coverage; nearest training image
sliced.py     sliced Wasserstein distance of pixels, which needs no network
sums.py       moments that are the same to the last bit however the samples are shared out
"""
