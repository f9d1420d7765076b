"""Feature extractors: networks whose features are compared in place of pixels.

choice           which extractor a run or a line names; what an extractor has
lite0            EfficientNet-Lite0 with ImageNet weights, from a package
stand_in         a seeded random network, where that package is not installed
inception        pytorch-fid's network, from a local file: the only one whose scores are fid and kid
inception_input  images resized to Inception's input by one of four methods
transformers     DINOv2 and CLIP, from local files
vectors          cosines of vectors
"""
