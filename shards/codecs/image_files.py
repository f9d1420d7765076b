"""Read the pixels of an image file as the file means them: one reading for every command.

`distgan shard`, training on tars that `distgan index` took, `distgan evaluate` of folders and the
report read files here. A decoder returns what a container holds; the file says what that means:

    orientation     EXIF's (and TIFF's), applied
    transparency    composited on black, before anything is resized, so that invisible colours do
                    not bleed into edges; also the one transparent value of a 16-bit gray PNG
    depth           a gray value of more than 8 bits is scaled by the full range that its file
                    states: 2^bits - 1 of TIFF's BitsPerSample (4095 of 12), the maximum of a PGM,
                    65535 of a PNG. Not stretched to the range of each image: that would make a dim
                    particle as bright as a strong one
    polarity        TIFF's WhiteIsZero: 0 is white, at any depth
    frames          the first of several

Refused, because nothing says what the values mean: 32-bit integers and floats without a range, TIFF
of signed 8 bits; and colour of more than 8 bits a channel, of which the decoder keeps 8. Colours
are taken as sRGB; `colour_space` names what a file states instead.
"""

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image

from distgan.shards.codecs import image as image_codec
from distgan.shards.codecs.image import FORMATS, WIDE, deep, maxval, upright

# 1: `shard` read TIFF without its depth and polarity; on tars of others, training applied neither
# orientation nor transparency.
DECODING = 2
EXTENSIONS = tuple(
    ".avif .bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
FIELDS = (*(extension[1:] for extension in EXTENSIONS), "npy")  # of a sample, that are images
_GRAY = ("1", "L", "LA", *WIDE)
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF's tags
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED = 0, 1, 2
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_PLAIN_PIXELS = 1 << 26  # Pillow refuses more than some 178 million
_SRGB_GAMMA = (0.44, 0.47)  # gAMA of a PNG is about 1 / 2.2


@dataclass(frozen=True)
class Header:
    """The size, channels and colour space that `picture` returns, from the header of a file."""

    width: int  # upright
    height: int
    is_gray: bool
    space: str  # the colour space it states, "" for sRGB or none


@contextlib.contextmanager
def _opened(file: Path | BinaryIO, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # Pillow warns about damaged metadata that it skips, and about large images, which are
        # usual here; it still refuses huge ones.
        warnings.simplefilter("ignore")
        with image_codec.opened(file, formats) as image:
            yield image


def quick_header(data: bytes) -> Header | None:
    """Return what `header` does, of the plainest PNG and JPEG, in a twentieth of the time; None for
    any other file, and for those with metadata.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR") and data[37:41] == b"IDAT":
        width, height, bits, colour, compression, method, _ = struct.unpack(">IIBBBBB", data[16:29])
        if bits == 8 and colour in (0, 2) and not compression and not method:
            if 0 < width * height <= _PLAIN_PIXELS:
                return Header(width, height, colour == 0, "")
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    at, found = 2, None
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:  # the scan: metadata may stand anywhere before it
            return found
        if marker in (0xC0, 0xC1, 0xC2):
            bits, height, width, channels = struct.unpack(">BHHB", data[at + 4 : at + 10])
            if bits != 8 or channels not in (1, 3) or not 0 < width * height <= _PLAIN_PIXELS:
                return None
            found = Header(width, height, channels == 1, "")
        elif marker not in (0xDB, 0xC4, 0xDD, 0xE0, 0xFE):  # tables, JFIF, comment
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def header(file: Path | BinaryIO, formats: tuple[str, ...] = FORMATS) -> Header:
    """Read the header of an image; ValueError for pixels whose meaning is not stated, any exception
    of the decoder for damage.
    """
    with _opened(file, formats) as image:
        return header_of(image)


def header_of(image: Image.Image) -> Header:
    """Return the header of an opened image; ValueError for pixels whose meaning is not stated."""
    _require_8_bits_of_colour(image)
    _require_unsigned(image)
    if image.mode in WIDE and not _full_scale(image, DECODING):
        raise ValueError(_no_range(image.mode))
    turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    width, height = image.size[::-1] if turned else image.size
    return Header(width, height, image.mode in _GRAY, colour_space(image))


def picture(
    file: Path | BinaryIO,
    limits: Sequence[float] | None = None,
    formats: tuple[str, ...] = FORMATS,
    decoding: int = DECODING,
    expected: tuple[int, int] | None = None,
) -> tuple[Image.Image, dict[str, Any]]:
    """Return the first frame, upright, in mode RGB, L, or F scaled to 0..255, and {width, height,
    mode} of the file.

    Values of more than 8 bits are scaled from `limits` (low, high) and clipped, info["outside"]
    being the share clipped; without limits, by the full range that the file states. `expected`:
    the (width, height) that it must have, before anything is unpacked. `decoding`: as an earlier
    version read it. Raises any exception of the decoder, and ValueError for another size, for
    pixels without a stated range or that are not finite.
    """
    with _opened(file, formats) as opened:
        original = {"width": opened.width, "height": opened.height, "mode": opened.mode}
        if expected is not None:
            _require_size(header_of(opened), expected)
        _require_8_bits_of_colour(opened)
        full, inverted, view = _full_scale(opened, decoding), False, None
        if decoding > 1:
            _require_unsigned(opened)
            inverted = opened.mode in WIDE and _tag(opened, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO
            if opened.mode == "I" and _tag(opened, _BITS) == 32 and not _is_signed(opened):
                view = np.uint32  # Pillow's mode is of signed integers
        frames, space = getattr(opened, "n_frames", 1), colour_space(opened)
        scaled = maxval(opened)  # of a PGM, which Pillow scales to 16 bits
        opened.load()
        image = upright(opened)
        hidden = image.info.get("transparency") if decoding > 1 and image.mode in WIDE else None
    outside = 0.0
    if image.mode in WIDE:
        if not limits and not full:
            raise ValueError(_no_range(image.mode))
        stored = np.asarray(image)
        values: np.ndarray = stored.view(view) if view else stored
        levels: np.ndarray
        if limits:
            # --range is of the values in the file
            exact = values.astype(np.float64) * (scaled / 65535 if scaled else 1)
            levels = (exact - limits[0]) * (255 / (limits[1] - limits[0]))
            if not np.isfinite(levels).all():
                raise ValueError("some pixels are not finite numbers")
            outside = float(np.mean((levels < 0) | (levels > 255)))
            levels = np.clip(levels, 0, 255).astype(np.float32)
        else:
            levels = values.astype(np.float32) / np.float32(full / 255)
        if inverted:
            levels = 255 - levels
        if isinstance(hidden, int):
            levels[values == hidden] = 0
        image = Image.fromarray(levels)
    else:
        image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    image.info |= {"frames": frames, "outside": outside, "space": space}
    return image, original


def as_bytes(image: Image.Image, channels: int) -> np.ndarray:
    """Return what `picture` returned as uint8 [height, width] or [height, width, 3]."""
    if image.mode == "F":
        image = Image.fromarray(np.clip(np.rint(np.asarray(image)), 0, 255).astype(np.uint8))
    return np.asarray(image.convert("L" if channels == 1 else "RGB"))


def decode(
    data: bytes, field: str, out: np.ndarray, decoding: int = DECODING, strict: bool = False
) -> None:
    """Decode a member of a sample into `out`, uint8 [height, width, channels].

    `decoding` 1: as `image.decode`, enough for what `image.encode` wrote. ValueError if it has
    another size, with `strict` also for colour instead of gray; any exception if it is damaged.
    """
    if decoding == 1 or field.rpartition(".")[2] == "npy":
        image_codec.decode(data, field, out, strict)
        return
    image, original = picture(io.BytesIO(data), expected=(out.shape[1], out.shape[0]))
    if strict and out.shape[2] == 1 and original["mode"] not in _GRAY:
        raise ValueError(f"an image of mode {original['mode']}, expected a gray one")
    out[...] = as_bytes(image, out.shape[2]).reshape(out.shape)


def colour_space(image: Image.Image) -> str:
    """Name the colour space that an opened file states, such as `Display P3`; "" for sRGB or none.

    Its values are used as they are.
    """
    if profile := image.info.get("icc_profile"):
        name = _profile_name(profile)
        return "" if "srgb" in name.lower() else f"ICC profile {name}"
    gamma = image.info.get("gamma")
    low, high = _SRGB_GAMMA
    if isinstance(gamma, float) and "srgb" not in image.info and not low < gamma < high:
        return f"gamma {gamma:g}"
    return ""


def _profile_name(profile: bytes) -> str:
    """Return the description in an ICC profile (ICC.1:2010, 7.3 and 9.2.41), at most 60 letters."""
    name = ""
    for at in range(132, 132 + 12 * min(100, int.from_bytes(profile[128:132], "big")), 12):
        if profile[at : at + 4] != b"desc":
            continue
        start, size = (int.from_bytes(profile[k : k + 4], "big") for k in (at + 4, at + 8))
        entry = profile[start : start + min(size, 1000)]
        if entry.startswith(b"mluc"):
            length, offset = (int.from_bytes(entry[k : k + 4], "big") for k in (20, 24))
            name = entry[offset : offset + length].decode("utf-16-be", "ignore")
        else:
            length = int.from_bytes(entry[8:12], "big")
            name = entry[12 : 12 + length].decode("ascii", "ignore")
    return "".join(letter for letter in name if letter.isprintable())[:60].strip() or "without name"


def _full_scale(image: Image.Image, decoding: int) -> float:
    """Return the value of an opened single-channel file that is white; 0 where none is stated."""
    if image.mode.startswith("I;16"):
        bits = _tag(image, _BITS, 16) if decoding > 1 else 16
        return 2.0**bits - 1
    return 65535.0 if image.mode == "I" and image.format == "PPM" else 0.0


def _tag(image: Image.Image, tag: int, default: int = 0) -> int:
    """Return the first value of a tag of an opened TIFF; the default for other formats."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default


def _is_signed(image: Image.Image) -> bool:
    return _tag(image, _SAMPLE_FORMAT, _UNSIGNED) == _SIGNED


def _require_unsigned(image: Image.Image) -> None:
    if image.mode not in WIDE and _is_signed(image):
        raise ValueError("a TIFF of signed 8-bit values, which have no stated range; convert it")


def _require_8_bits_of_colour(image: Image.Image) -> None:
    if image.mode not in WIDE and (depth := deep(image)):
        raise ValueError(
            f"more than 8 bits in each of several channels ({depth}), of which the decoder"
            " would keep 8; convert it to 8 bits, or to gray of 16"
        )


def _require_size(found: Header, expected: tuple[int, int]) -> None:
    if (found.width, found.height) != expected:
        raise ValueError(
            f"an image of {found.width}x{found.height} pixels, expected {expected[0]}x{expected[1]}"
        )


def _no_range(mode: str) -> str:
    return (
        f"pixels of mode {mode} have no stated range; convert them to 8 bits, or make shards of the"
        " file and state the range: distgan shard images … --range LOW HIGH"
    )
