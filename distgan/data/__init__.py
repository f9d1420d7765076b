"""From shards to training batches; the order is a pure function of the position in the stream.

The same samples, augmented alike, reach an update on any number of ranks and micro-batches, after
any restart. Imports core, config,
distributed.environment, runs.data_code, shards.codecs and shards.format.

dataset      a folder of shards: its two splits and the format of a sample
own_dataset  a map-style Dataset of one's own in place of such a folder
samples      formats of samples: images, pairs of images or signals; how they are decoded and cut
order        position in the endless stream -> epoch, sample, address of augmentation
loader       this rank's micro-batches, decoded ahead or kept on the device
epochs       batches of one epoch after the other, for a loop of one's own
labels       the classes of the samples, for networks that are given them
transforms   conversion and augmentation of training samples
diffaugment  differentiable augmentation of what D sees
ada          the same of a share of the images, as adaptive augmentation says
"""
