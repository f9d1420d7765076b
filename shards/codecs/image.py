"""Encode images as the bytes of a tar member, and decode them.

    payload   field   content
    png       png     lossless; what people and other programs open
    jpeg      jpg     lossy (quality 95, full chroma), small
    raw       npy     uint8 with NumPy's header; decodes fifty times faster than PNG, and stock
              webdataset decodes it too

Pixels are uint8 [height, width] for one channel, [height, width, 3] for three.
"""

import contextlib
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from distgan.core.arguments import one_of
from distgan.core.reading import open_regular
from distgan.shards.codecs import array

FIELDS = {"png": "png", "jpeg": "jpg", "raw": "npy"}
# Only declared formats: of files from elsewhere Image.open would open anything, and start
# Ghostscript for a PostScript file of that name.
_AVIF = ("AVIF",) if importlib.util.find_spec("PIL.AvifImagePlugin") else ()  # Pillow 11.3
FORMATS = (*_AVIF, "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_READERS: dict[str, Any] = {"png": PngImageFile, "jpg": JpegImageFile, "jpeg": JpegImageFile}
_GRAY = ("1", "L", "LA")
# Pillow's modes of one channel that hold more than 8 bits
WIDE = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_BITS_PER_SAMPLE = 258  # TIFF's tag
IMAGE_FIELDS = (*_READERS, "npy")
T = TypeVar("T", int, str)


PAYLOAD = one_of(
    "payload",
    "how an image is stored: png, lossless, opens everywhere; jpeg, small, but lossy; raw, uint8 in"
    " .npy, decodes about 50 times faster than png and is larger",
    *FIELDS,
    default="png",
)


def encode(pixels: np.ndarray, payload: str, quality: int = 95) -> tuple[str, bytes]:
    """Encode uint8 [height, width] or [height, width, 3] as (field, bytes).

    `payload` is png, jpeg (of this quality, full chroma) or raw.
    """
    field = FIELDS[payload]
    if field == "npy":
        return field, array.encode(pixels)
    file = io.BytesIO()
    if field == "jpg":
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    else:
        Image.fromarray(pixels).save(file, "PNG")
    return field, file.getvalue()


@contextlib.contextmanager
def opened(file: Path | BinaryIO, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """Open a regular file, or bytes, as an image of one of the formats.

    Any exception of the decoder for another format, for damage, and for more pixels than Pillow
    trusts.
    """
    with contextlib.ExitStack() as files:
        if isinstance(file, Path):
            file = files.enter_context(open_regular(file, links=True))
        try:
            image = Image.open(file, formats=formats)
        except UnidentifiedImageError:  # whose text has a memory address
            raise UnidentifiedImageError(
                f"not an image in one of the formats {', '.join(formats)}, or its header is damaged"
            ) from None
        yield files.enter_context(image)


def decode(data: bytes, field: str, out: np.ndarray, strict: bool = False) -> None:
    """Decode the image in `data` into `out`, uint8 [height, width, channels].

    ValueError if it has another size; any exception if it is damaged. `strict`: ValueError also for
    colour instead of gray: no set is made like that, so its dataset.json is damaged.
    """
    kind = field.rpartition(".")[2]  # of `left.png`, too
    if kind == "npy":
        out[...] = _pixels(data, out).reshape(out.shape)
        return
    with _READERS[kind](io.BytesIO(data)) as image:
        # before anything is unpacked: the stated size may be wrong
        if image.size != (out.shape[1], out.shape[0]):
            raise ValueError(
                f"an image of {image.width}x{image.height} pixels, expected"
                f" {out.shape[1]}x{out.shape[0]}"
            )
        if depth := deep(image):
            raise ValueError(f"an image of more than 8 bits ({depth})")
        mode = "L" if out.shape[2] == 1 else "RGB"
        if strict and mode == "L" and image.mode not in _GRAY:
            raise ValueError(f"an image of mode {image.mode}, expected a gray one")
        pixels = (image if image.mode == mode else image.convert(mode)).tobytes()
    out[...] = np.frombuffer(pixels, np.uint8).reshape(out.shape)


def deep(image: Image.Image) -> str | None:
    """Describe how an opened file holds more than 8 bits a channel; None if it does not.

    Call it before the pixels are loaded. Pillow keeps the bits of a single channel, and clips to
    255 when it converts; of several channels it keeps 8 bits while it reads, without a warning.
    """
    if image.mode in WIDE:
        return image.mode
    # TIFF, where a channel may be a plane of its own
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 0)
    most = max(bits if isinstance(bits, tuple) else (bits,))
    if most > 8:
        return f"{image.mode}, {most} bits"
    raw_mode = next(iter(_decoder_arguments(image, str)), "")
    if ";16" in raw_mode:
        return raw_mode
    if maxval(image) > 255:
        return f"{image.mode}, values up to {maxval(image)}"
    return None


def maxval(image: Image.Image) -> int:
    """Return the full scale of an opened PPM or PGM whose decoder scales the values, else 0."""
    tiles = getattr(image, "tile", [])
    if not tiles or not tiles[0].codec_name.startswith("ppm"):
        return 0
    return next(iter(_decoder_arguments(image, int)), 0)


def _decoder_arguments(image: Image.Image, kind: type[T]) -> list[T]:
    """Return the arguments of this type that Pillow passes to the decoder of an opened file."""
    tiles = getattr(image, "tile", [])
    arguments = tiles[0].args if tiles else ()
    if not isinstance(arguments, tuple):
        arguments = (arguments,)
    return [argument for argument in arguments if isinstance(argument, kind)]


def upright(image: Image.Image) -> Image.Image:
    """Return an image as a viewer shows it.

    Rotated by its EXIF orientation and, with 8 bits, on black where it is transparent.
    """
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data and image.mode not in WIDE:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert(
            "RGB"
        )
    return image


def _pixels(data: bytes, out: np.ndarray) -> np.ndarray:
    shape = out.shape[:2] if out.shape[2] == 1 else out.shape
    return array.decode(data, np.dtype(np.uint8), shape, out.shape)
