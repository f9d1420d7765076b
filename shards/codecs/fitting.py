"""Bring images of any size to one size: by a centred crop, or by changing their aspect.

    fit      kept of an image                                    its aspect
    crop     the largest centred crop of the aspect of `size`    stays
    squash   all of it                                           becomes that of `size`

Both resize with Pillow's Lanczos filter, which widens with the reduction and so does not alias: the
usual choice for GAN training sets and the safe one for FID (Parmar et al. 2022, "On Aliased
Resizing").
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from distgan.core.arguments import one_of

Size = int | list[int]  # a side of squares, or [height, width]
FITS = ("crop", "squash")
FIT = one_of(
    "fit",
    "crop: cut out the largest centred crop of the aspect of --size, and resize it; squash: resize"
    " the whole image to --size whatever its aspect, as torchvision's Resize((H, W)) does",
    *FITS,
    default="crop",
)


class Resize(NamedTuple):
    """How all images of a set are brought to one size."""

    size: Size
    fit: str = "crop"


def height_width(size: Size) -> tuple[int, int]:
    """Return (height, width) of the `size` of images: an int for squares, else [height, width]."""
    height, width = size if isinstance(size, list) else (size, size)
    return height, width


def to_size(image: Image.Image, size: Size, fit: str = "crop") -> Image.Image:
    """Return the image at `size`, in mode L or RGB; of mode F, values are in 0..255."""
    width, height = kept(image.size, size, fit)
    left, upper = (image.width - width) // 2, (image.height - height) // 2
    crop = image.crop((left, upper, left + width, upper + height)).resize(
        height_width(size)[::-1], Image.Resampling.LANCZOS
    )
    if crop.mode == "F":
        crop = Image.fromarray(np.clip(np.rint(np.asarray(crop)), 0, 255).astype(np.uint8))
    return crop


def kept(whole: tuple[int, int], size: Size, fit: str = "crop") -> tuple[int, int]:
    """Return (width, height) of the part of an image that is resized to `size`."""
    height, width = height_width(size)
    if fit == "squash":
        return whole
    if whole[0] * height > whole[1] * width:
        return max(1, round(whole[1] * width / height)), whole[1]
    return whole[0], max(1, round(whole[0] * height / width))


def fit_note(shapes: Sequence[tuple[str, tuple[int, int]]], size: Size, fit: str) -> str:
    """Describe in one line how images of these (name, (width, height)) are brought to `size`."""
    height, width = height_width(size)

    def changed(shape: tuple[int, int]) -> float:
        """Return the share that a crop cuts off; 0 where the aspects are equal."""
        part = kept(shape, size)
        return 1 - part[0] * part[1] / (shape[0] * shape[1])

    others = [(changed(shape), name, shape) for name, shape in shapes if changed(shape)]
    start = f"{len(others)} of {len(shapes)} images have another aspect than {width}x{height}"
    if not others:
        return f"resized to {width}x{height}; all images have that aspect"
    _, name, shape = max(others, key=lambda other: other[0])
    example = f"{name} of {shape[0]}x{shape[1]} pixels"
    if fit == "squash":
        return f"{start} and were squashed to it (--fit squash), most {example}"
    part = kept(shape, size)
    return (
        f"{start} and were cut to their centre before they were resized (--fit crop): of {example},"
        f" {part[0]}x{part[1]} were kept; --fit squash keeps all and changes the aspect"
    )
