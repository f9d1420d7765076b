"""One file for each system that can be trained; the file name is the name on the command line.

A recipe module has `Settings`, the settings of its runs with their defaults, and `Recipe`, its
networks and losses, as `_base.Recipe` describes. Nothing is registered. A YAML file here is a
preset: a recipe with other values. templates/ has what `distgan new` writes.

One step is read in three files: the recipe, engine.player and nn.losses. Recipes may import all
packages below report and training, but not each other.

sagan          images from noise: self-attention, spectral norm
r3gan          images from noise: relativistic pairs, R1 and R2
wgan_flowers   images from noise: Wasserstein loss, clipping or gradient penalty
waveform       paired signals: a U-Net over time and a PatchGAN
timbre         denoised speech -> clean speech, in the spectrogram
_base          the interface of a recipe; helpers of several recipes
_catalog       find a recipe by name, file or import path, without torch
_own_code      import a recipe that is not distgan's, from the sources of its digest
_noise         samples and validation of recipes that start from noise
_image_settings   settings that these recipes share
_pair_settings    settings that waveform and timbre share; what trivial outputs score
"""
