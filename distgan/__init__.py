"""Train GANs on images and audio: one run, any cluster."""

__version__ = "0.2.0"
