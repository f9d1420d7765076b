"""An image as the bytes of a tar member, and back.

    payload   field   what it is
    png       png     lossless; what people and other programs open
    jpeg      jpg     lossy (quality 95, full chroma), small
    raw       npy     uint8 with NumPy's header; decodes fifty times faster than PNG, and stock
              webdataset decodes it too

Pixels are uint8 [height, width] for one channel, [height, width, 3] for three.
"""

import argparse
import functools
import io

import numpy as np
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

FIELDS = {"png": "png", "jpeg": "jpg", "raw": "npy"}
# The named format alone: of shards from elsewhere Image.open would open anything, and start
# Ghostscript for a PostScript file of that name.
_READERS = {"png": PngImageFile, "jpg": JpegImageFile, "jpeg": JpegImageFile}
_GRAY = ("1", "L", "LA")
WIDE = (
    "I;16",
    "I;16B",
    "I;16L",
    "I;16N",
    "I",
    "F",
)  # Pillow's modes of one channel that hold more than 8 bits
_BITS_PER_SAMPLE = 258  # TIFF's tag
IMAGE_FIELDS = (*_READERS, "npy")


def add_option(parser: argparse.ArgumentParser) -> None:
    """`--payload`, the same for every source of images."""
    parser.add_argument(
        "--payload",
        choices=tuple(FIELDS),
        default="png",
        help=(
            "how an image is stored: png, lossless, opens everywhere; jpeg, small, but lossy; raw,"
            " uint8 in .npy, decodes about 50 times faster than png and takes more room (default:"
            " %(default)s)"
        ),
    )


def encode(pixels: np.ndarray, payload: str) -> tuple[str, bytes]:
    """uint8 [height, width] or [height, width, 3] -> (field, bytes); `payload` is png, jpeg or raw."""
    field = FIELDS[payload]
    if field == "npy":
        return field, _header(pixels.shape) + np.ascontiguousarray(pixels).tobytes()
    file = io.BytesIO()
    how = {"quality": 95, "subsampling": 0} if field == "jpg" else {}
    Image.fromarray(pixels).save(file, "JPEG" if field == "jpg" else "PNG", **how)
    return field, file.getvalue()


def decode(data: bytes, field: str, out: np.ndarray, strict: bool = False) -> None:
    """The image in `data` -> `out`, uint8 [height, width, channels]. ValueError if it has another
    size; anything if it is damaged.

    `strict`: ValueError, too, for colour where gray is due: no set is made like that, so its
    dataset.json is damaged.
    """
    kind = field.rpartition(".")[2]  # of `left.png`, too
    if kind == "npy":
        out[...] = _pixels(data, out).reshape(out.shape)
        return
    with _READERS[kind](io.BytesIO(data)) as image:
        if image.size != (
            out.shape[1],
            out.shape[0],
        ):  # before anything is unpacked: the size may be a lie
            raise ValueError(
                f"an image of {image.width}x{image.height} pixels where"
                f" {out.shape[1]}x{out.shape[0]} are due"
            )
        if wide := deep(image):
            raise ValueError(f"an image of more than 8 bits ({wide})")
        mode = "L" if out.shape[2] == 1 else "RGB"
        if strict and mode == "L" and image.mode not in _GRAY:
            raise ValueError(f"an image of mode {image.mode} where a gray one is due")
        pixels = (image if image.mode == mode else image.convert(mode)).tobytes()
    out[...] = np.frombuffer(pixels, np.uint8).reshape(out.shape)


def deep(image: Image.Image) -> str | None:
    """How an opened file holds more than 8 bits a channel, None where it does not. Asked before its
    pixels are loaded.

    Of one channel Pillow keeps them, and cuts to 255 when it converts; of several it keeps 8 while
    it reads, and says nothing.
    """
    if image.mode in WIDE:
        return image.mode
    bits = getattr(image, "tag_v2", {}).get(
        _BITS_PER_SAMPLE, 0
    )  # of TIFF, where a channel may be a plane of its own
    most = max(bits if isinstance(bits, tuple) else (bits,))
    args = image.tile[0].args if image.tile else ()
    raw = next(
        (one for one in (args if isinstance(args, tuple) else (args,)) if isinstance(one, str)), ""
    )
    return (
        f"{image.mode}, {most} bits"
        if most > 8
        else (
            raw
            if ";16" in raw
            else f"{image.mode}, values up to {maxval(image)}"
            if maxval(image) > 255
            else None
        )
    )


def maxval(image: Image.Image) -> int:
    """What stands for full scale in an opened PPM or PGM whose values its decoder scales.

    0 elsewhere.
    """
    tile = image.tile[0] if image.tile else None
    return (
        next((one for one in tile.args if isinstance(one, int)), 0)
        if tile and tile.codec_name.startswith("ppm") and isinstance(tile.args, tuple)
        else 0
    )


def upright(image: Image.Image) -> Image.Image:
    """An image as a viewer shows it.

    Turned as its EXIF says, and, of 8 bits, on black where it is transparent.
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
    head = _header(shape)
    if len(data) == len(head) + out.nbytes and data.startswith(head):
        return np.frombuffer(data, np.uint8, offset=len(head))
    pixels = np.load(
        io.BytesIO(data), allow_pickle=False
    )  # made by someone else: another header, or another array
    if pixels.dtype != np.uint8 or pixels.shape not in (shape, out.shape):
        raise ValueError(
            f"an array of {pixels.dtype} {list(pixels.shape)} where uint8 {list(shape)} is due"
        )
    return pixels


@functools.lru_cache
def _header(shape: tuple[int, ...]) -> bytes:
    """What NumPy writes before the values of a uint8 array in C order."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()
