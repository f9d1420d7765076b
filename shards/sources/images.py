"""A folder of images of any size, mode and bit depth -> square 8-bit images.

What is done to each, in this order, and why:

1. the camera's orientation (EXIF) is applied, so that no picture lies on its side
2. 16-bit values are divided by 257, the full range 0..65535 -> 0..255, the same for every image: stretching each image to its own range
   would make a dim particle as bright as a strong one
3. transparency is composited on black, before resizing, so that invisible colours do not bleed into edges
4. the largest centred square is cut out, and resized with Pillow's Lanczos filter, which widens with the reduction and so does not alias;
   the usual choice for GAN training sets and the safe one for FID (Parmar et al. 2022, "On Aliased Resizing")
5. values are rounded to 8 bits once, at the end

What makes an image low quality is in `LowQuality`. A sample is `key.png` and `key.json`: file, width, height and mode before all this.
"""

import argparse
import hashlib
import io
import json
import os
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from distgan import console
from distgan.errors import ConfigError, DataError
from shards.parallel import ordered_map
from shards.sources import Check, Finding

EXAMPLES = [("every image below a folder, grayscale if all of them are", "distgan shard images OUT --from photos --size 64"),
            ("in colour, without damaged, blank, tiny, saturated or repeated ones",
             "distgan shard images OUT --from photos --channels 3 --drop-low-quality")]
RECIPE = "sagan"

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
SIZES = (8, 2048)
MODES_16_BIT = ("I;16", "I;16B", "I;16L")
KEY_LENGTH = 80  # a USTAR name has at most 100 bytes


class LowQuality:
    """The rules, judged on the square that would be written; all of them can be read off the report."""

    BLANK_STD = 2.0  # levels of 255: less contrast than the noise of a good camera
    TINY = 0.5  # of --size: the shorter side would be enlarged more than twice
    SATURATED_LEVEL, SATURATED_SHARE = 254, 0.95  # so many values at the top of the range hold no picture
    # And exact duplicates: the same pixels as an image before it, whatever the file format.


@dataclass(frozen=True)
class Look:
    """What one image is like; `fault` is set if it cannot be read, `weakness` if it is of low quality."""

    digest: str = ""
    colour: bool = False
    frames: int = 1
    fault: str = ""
    weakness: str = ""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="folder", metavar="FOLDER", required=True, help="where the images are, at any depth")
    parser.add_argument("--size", type=int, default=64, help="width and height in pixels (default: %(default)s)")
    parser.add_argument("--channels", type=int, choices=(1, 3), help="1 grayscale, 3 colour (default: 1 if every image is gray, else 3)")


class Source:
    def __init__(self, args: argparse.Namespace):
        self.folder, self.size, self.channels = Path(args.folder), args.size, args.channels
        if not SIZES[0] <= args.size <= SIZES[1]:
            raise ConfigError(f"--size {args.size}: from {SIZES[0]} to {SIZES[1]} pixels")
        if not self.folder.is_dir():
            raise ConfigError(f"--from {self.folder}: no such folder")
        self.files, self.others = find_images(self.folder)
        if not self.files:
            raise ConfigError(f"--from {self.folder}: holds no images ({', '.join(EXTENSIONS)}; any case), "
                              f"{sum(self.others.values())} other files")
        self.keys = keys_of(self.files)
        self.options: dict[str, Any] = {"size": args.size, "channels": args.channels, "from": self._contents()}
        self.origin: dict[str, Any] = {"folder": args.folder}
        self.sample: dict[str, Any] = {}
        self.looks: list[Look] = []

    def _contents(self) -> str:
        """Names the files by their contents: a moved or copied folder is the same source, one with a changed file is not."""
        total = hashlib.sha256()
        with console.bar("hashing", len(self.files), "images") as bar:
            for file in self.files:
                with open(self.folder / file, "rb") as opened:
                    total.update(os.fsencode(file) + b"\0" + hashlib.file_digest(opened, "sha256").digest())
                bar.advance()
        return f"{len(self.files)} images with sha256 {total.hexdigest()[:16]}"

    def check(self, workers: int) -> Check:
        """Decode every image once; choose the number of channels if it was not given."""
        self.looks = []
        with console.bar("checking", len(self.files), "images") as bar:
            for look in ordered_map(self._look, self.files, workers):
                self.looks.append(look)
                bar.advance()
        check = Check()
        first: dict[str, str] = {}
        for i, (file, look) in enumerate(zip(self.files, self.looks, strict=True)):
            reason = look.fault or look.weakness
            if not look.fault and look.digest in first:
                reason = f"duplicate of {first[look.digest]}"
            elif not look.fault:
                first[look.digest] = shown(file)
            if reason:
                check.findings.append(Finding(i, shown(file), reason, usable=not look.fault))
        if self.channels is None:
            self.channels = 3 if any(look.colour for look in self.looks) else 1
        self.sample = {"kind": "image", "channels": self.channels, "size": self.size}
        check.notes = self._notes()
        return check

    def _notes(self) -> list[str]:
        readable = [(file, look) for file, look in zip(self.files, self.looks, strict=True) if not look.fault]
        coloured = [file for file, look in readable if look.colour]
        several = [file for file, look in readable if look.frames > 1]
        notes = [f"{len(coloured)} of {len(readable)} images have colour; written as {'colour' if self.channels == 3 else 'grayscale'}"]
        if several:
            notes.append(f"only the first frame is used of files with several: {len(several)}, such as {shown(several[0])}")
        if self.others:
            notes.append("not images, left alone: " + ", ".join(f"{n} {kind}" for kind, n in sorted(self.others.items())))
        return notes

    def _look(self, file: str) -> Look:
        # Image decoders raise anything on damaged files: OSError, SyntaxError, struct.error, IndexError, zlib.error.
        try:
            image, _ = decode(self.folder / file)
        except Exception as error:
            return Look(fault=f"unreadable: {_reason(error)}")
        values = np.asarray(image)
        square = np.asarray(to_square(image, self.size))
        shorter = min(image.size)
        saturated = float(np.mean(square >= LowQuality.SATURATED_LEVEL))
        weakness = ""
        if shorter < LowQuality.TINY * self.size:
            weakness = f"tiny: shorter side {shorter} pixels, less than {LowQuality.TINY * self.size:g}"
        elif saturated > LowQuality.SATURATED_SHARE:
            weakness = f"saturated: {saturated:.1%} of the values at the top, more than {LowQuality.SATURATED_SHARE:.0%}"
        elif float(square.std()) < LowQuality.BLANK_STD:
            weakness = f"blank: standard deviation {square.std():.2f} of 255 levels, less than {LowQuality.BLANK_STD:g}"
        colour = values.ndim == 3 and bool(np.any(values != values[..., :1]))
        # A gray image is the same picture whether its file has one channel or three.
        plain = values if values.ndim == 2 or colour else values[..., 0]
        digest = hashlib.sha256(f"{plain.shape}".encode() + np.ascontiguousarray(plain, dtype="<f4").tobytes()).hexdigest()
        return Look(digest, colour, image.info.get("frames", 1), "", weakness)

    def group(self, i: int) -> str:
        """Images with the same pixels are one group: a copy of a training image must not be in validation."""
        return self.looks[i].digest

    def make(self, i: int) -> dict[str, Any]:
        try:
            image, about = decode(self.folder / self.files[i])
        except Exception as error:
            file = self.folder / shown(self.files[i])
            raise DataError(f"{file} could be read when it was checked, not any more: {_reason(error)}") from error
        square = to_square(image, self.size).convert("L" if self.channels == 1 else "RGB")
        png = io.BytesIO()
        square.save(png, "PNG")
        return {"__key__": self.keys[i], "png": png.getvalue(), "json": json.dumps({"file": shown(self.files[i]), **about}).encode()}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "looks": []}


def decode(path: Path) -> tuple[Image.Image, dict[str, Any]]:
    """The first frame, upright, in mode RGB, L, or F with 16-bit values scaled to 0..255; and the size and mode of the file.

    Raises whatever the decoder raises, and ValueError for pixels without a stated range.
    """
    with warnings.catch_warnings():
        # Pillow warns about damaged metadata that it steps over, and about large images, which are usual here; it still refuses huge ones.
        warnings.simplefilter("ignore")
        with Image.open(path) as opened:
            about = {"width": opened.width, "height": opened.height, "mode": opened.mode}
            frames, sixteen = getattr(opened, "n_frames", 1), opened.mode in MODES_16_BIT or (opened.mode == "I" and opened.format == "PPM")
            opened.load()
            image = ImageOps.exif_transpose(opened)
    if image.mode in ("I", "F") and not sixteen:
        raise ValueError(f"pixels of mode {image.mode} have no stated range; convert them to 8 or 16 bits")
    if sixteen:
        image = Image.fromarray(np.asarray(image).astype(np.float32) / 257)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    image.info["frames"] = frames
    return image, about


def to_square(image: Image.Image, size: int) -> Image.Image:
    """The centred square, resized to `size` x `size`, in mode L or RGB."""
    side = min(image.size)
    left, upper = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, upper, left + side, upper + side)).resize((size, size), Image.Resampling.LANCZOS)
    if square.mode == "F":
        square = Image.fromarray(np.clip(np.rint(np.asarray(square)), 0, 255).astype(np.uint8))
    return square


def find_images(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Images below a folder, sorted, relative to it with '/'; and how many other files there are by extension. Hidden files do not count.

    Links to folders are followed, as data sets on clusters are often made of them, but no folder is entered twice.
    """
    files: list[str] = []
    others: Counter[str] = Counter()
    entered: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(place)) in entered:
            folders.clear()
            continue
        entered.add(real)
        for name in names:
            extension = os.path.splitext(name)[1].lower()
            if extension in EXTENSIONS and not name.startswith("."):
                files.append(Path(place, name).relative_to(folder).as_posix())
            elif not name.startswith("."):
                others[extension or "without extension"] += 1
    return sorted(files, key=os.fsencode), dict(others)


def keys_of(files: list[str]) -> list[str]:
    """`cats/Tom 1.png` -> `cats_Tom_1`; where two files would have one key, or it is too long, with a hash of the name at its end."""
    plain = [re.sub(r"[^A-Za-z0-9-]+", "_", os.path.splitext(file)[0]).strip("_") for file in files]
    count = Counter(key.casefold() for key in plain)
    return [key if key and len(key) <= KEY_LENGTH and count[key.casefold()] == 1
            else f"{key[:KEY_LENGTH - 13]}-{hashlib.sha256(os.fsencode(file)).hexdigest()[:12]}"
            for key, file in zip(plain, files, strict=True)]


def shown(file: str) -> str:
    """A file name that can be printed and stored: bytes that are not UTF-8 are shown as \\xNN."""
    return os.fsencode(file).decode("utf-8", "backslashreplace")


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image that Pillow knows, or its header is damaged"
    return f"{error} ({type(error).__name__})"
