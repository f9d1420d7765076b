"""Networks, their layers and adversarial losses: torch modules and plain functions.

Nothing here reads files or draws random numbers after initialisation. Names of layers are names in
checkpoints. Imports core and distributed.

image          generator and discriminator of images, self-attention
waveform       U-Net and PatchGAN over time
spectrogram    repair in the spectrogram, discriminators of several resolutions
class_vectors  of the classes of conditional networks, and mixtures of them
normalization  batch norm over groups of the global batch, spectral norm
losses         adversarial losses and gradient penalties, each with its source
"""
