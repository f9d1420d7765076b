"""Scores of generated images and measures of repaired sound, computed by all ranks.

A score does not depend on the number of ranks or threads, and its name says what it was computed
with: only published weights give `fid` and `kid`. May import core, config, monitor, runs,
distributed, data, nn, metrics and shards; never engine, recipes or training.

image_evaluator    scores of a generator or a set of images or vectors against real ones, collective
drawn              samples as they are scored: images in 8 bits, vectors as they are
set_statistics     features, projections and moments of a set, computed by all ranks
image_scores       which scores there are, each beside its floor; for one process
image_pairs        products of all pairs of images, computed once by all ranks
features           feature extractors: EfficientNet-Lite0, Inception, a stand-in, cosines of vectors
unverified         the Fréchet distance to statistics whose origin is not known
sets               data sets, folders and statistics of images, to be compared
audio              measures of repaired sound
"""
