"""A folder of images of any size, mode and bit depth -> 8-bit images of one size.

Each image is converted in these steps:

1. it is read as its file means it: orientation, transparency, depth, polarity
   (`codecs.image_files`). 32-bit integers and floats have no full range: `--range` states it, also
   for a camera's 12 bits in a file of 16
2. it is brought to `--size`, by default a square of 64 pixels: its largest centred crop of that
   aspect (`--fit crop`), or all of it (`--fit squash`), resized without aliasing: `codecs.fitting`
3. values are rounded to 8 bits once, at the end

`LowQuality` has the rules for low quality. A sample is `key.png` (or .jpg, .npy: `--payload`) and
`key.json`: file, width, height and mode of the original, and its labels (`--labels`).
"""

import functools
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from distgan.core.arguments import Arguments, Option, number, one_of
from distgan.core.errors import ConfigError, DataError
from distgan.core.file_tree import Contents, find_files, keys_of, shown
from distgan.shards.codecs import image as image_codec
from distgan.shards.codecs import image_files
from distgan.shards.codecs.fitting import FIT, Size, fit_note, height_width, kept, to_size
from distgan.shards.format import label_files
from distgan.shards.format.sample_spec import read_size
from distgan.shards.sources._base import SampleIssue, Shared, SourceReport, examine

EXAMPLES = [
    (
        "every image below a folder, grayscale if all of them are",
        "distgan shard images OUT --from photos --size 64",
    ),
    (
        "in colour, without damaged, blank, tiny, saturated or repeated ones",
        "distgan shard images OUT --from photos --channels 3 --drop-low-quality",
    ),
    (
        "with the folders in it as classes, for conditional networks",
        "distgan shard images OUT --from photos --labels folders",
    ),
]
RECIPE = "sagan"

KEPT = ("decoding",)
SIZES = (8, 2048)


class LowQuality:
    """The rules, applied to the crop that would be written; the report states all of them."""

    BLANK_STD = 2.0  # levels of 255: less contrast than the noise of a good camera
    TINY = 0.5  # of --size: the shorter side would be enlarged more than twice
    # an image with such a share of its values at the top of the range shows nothing
    SATURATED_LEVEL, SATURATED_SHARE = 254, 0.95
    # And exact duplicates: the same pixels as an earlier image, in any file format.


@dataclass(frozen=True)
class ImageReport:
    """The result of examining one image."""

    digest: str = ""  # of its pixels
    shape: tuple[int, int] = (0, 0)  # width and height, upright
    colour: bool = False
    frames: int = 1
    outside: float = 0.0  # share of the values that --range clips
    error: str = ""  # why it cannot be read
    quality_issue: str = ""
    space: str = ""  # the colour space it states, if not sRGB


OPTIONS = (
    Option("from", "where the images are, at any depth", "FOLDER", dest="folder", required=True),
    Option(
        "size",
        "pixels: of a side of squares, or WIDTHxHEIGHT, such as 128x64",
        "N|WxH",
        default=64,
        allowed=f"{SIZES[0]:,} to {SIZES[1]:,}, or two of them as WIDTHxHEIGHT, such as 128x64",
        read=functools.partial(read_size, least=SIZES[0], most=SIZES[1]),
    ),
    FIT,
    one_of(
        "channels",
        "1 grayscale, 3 colour (default: 1 if every image is gray, else 3)",
        "1",
        "3",
        kind=int,
    ),
    number(
        "range",
        "the values of 16-bit, 32-bit and float images that become 0 and 255, such as 0 4095 for 12"
        " bits (default: the full range of 16 bits; others are refused)",
        -math.inf,
        math.inf,
        count=2,
        metavar="LOW HIGH",
        allowed="two finite numbers, the lower first",
    ),
    image_codec.PAYLOAD,
    Option(
        "labels",
        "the class of each image: folders, by the first folder below FROM; or a file that names the"
        " images relative to FROM: CSV with a header, a column of files and columns of labels, or"
        " JSON",
        "folders|FILE.csv|FILE.json",
        allowed="folders, or a file .csv or .json",
        read=label_files.choice,
    ),
)


def check_options(args: Arguments) -> Iterator[str]:
    """Yield the errors of options that do not fit together."""
    if args.range and not -math.inf < args.range[0] < args.range[1] < math.inf:
        yield f"--range {args.range[0]:g} {args.range[1]:g}: two finite numbers, the lower first"


class Source:
    def __init__(self, args: Arguments):
        self.folder, self.size, self.channels = Path(args.folder), args.size, args.channels
        self.range, self.payload, self.fit = args.range, args.payload, args.fit
        self.decoding = decoding_of(args)
        self.shared: Shared | None = None
        if not self.folder.is_dir():
            raise ConfigError(f"--from {self.folder}: no such folder")
        self.files, self.others = find_files(self.folder, image_files.EXTENSIONS)
        if not self.files:
            raise ConfigError(
                f"--from {self.folder}: has no images ({', '.join(image_files.EXTENSIONS)}; any"
                f" case), but {sum(self.others.values())} other files"
            )
        self.keys, self.contents = keys_of(self.files), Contents(self.folder, self.files, "images")
        self.options: dict[str, Any] = {
            "size": args.size,
            "fit": args.fit,
            "channels": args.channels,
            "range": args.range,
            "payload": args.payload,
            "decoding": self.decoding,
            "from": str(self.contents),
        }
        self.origin: dict[str, Any] = {"folder": args.folder}
        self.labels = label_files.NONE
        if args.labels:
            self.labels = label_files.read_image_labels(args.labels, self.folder, self.files)
            self.label_columns = self.labels.columns
            self.options["labels"] = self.labels.option
            self.origin["labels"] = args.labels
        self.sample: dict[str, Any] = {}
        self.reports: list[ImageReport] = []

    def check(self, workers: int) -> SourceReport:
        """Decode every image once; without --channels, choose 3 if any image has colour."""
        inspect = functools.partial(
            inspect_image,
            size=self.size,
            limits=self.range,
            fit=self.fit,
            decoding=self.decoding,
        )
        paths = [self.folder / file for file in self.files]
        names = [shown(file) for file in self.files]
        self.reports, issues = inspect_all(inspect, paths, names, workers, self.shared)
        if self.channels is None:
            self.channels = 3 if any(report.colour for report in self.reports) else 1
        self.sample = {
            "kind": "image",
            "channels": self.channels,
            "size": self.size,
            "field": image_codec.FIELDS[self.payload],
        }
        notes = notes_of(names, self.reports, self.channels, self.range)
        notes.append(fitted(names, self.reports, self.size, self.fit))
        if self.others:
            counts = ", ".join(f"{n} {kind}" for kind, n in sorted(self.others.items()))
            notes.append(f"files that are not images, ignored: {counts}")
        return SourceReport(issues, notes + self.labels.notes)

    def label_of(self, i: int) -> dict[str, int | str]:
        """Return the value of each column of labels."""
        return self.labels.rows[i] if self.labels.rows else {}

    def group(self, i: int) -> str:
        """Return the hash of the pixels: no copy of a training image may be in validation."""
        return self.reports[i].digest

    def make(self, i: int) -> dict[str, Any]:
        digest = self.contents.digests[self.files[i]]
        image, original = decode_again(
            self.folder / self.files[i], digest, self.range, self.decoding
        )
        field, data = encode(image, self.size, self.channels, self.payload, self.fit)
        record = {"file": shown(self.files[i]), **original, **self.label_of(i)}
        return {"__key__": self.keys[i], field: data, "json": json.dumps(record).encode()}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "reports": []}


def notes_of(
    names: list[str], reports: list[ImageReport], channels: int, limits: Sequence[float] | None
) -> list[str]:
    """Return notes about the readable ones of these images."""
    readable = [
        (name, report) for name, report in zip(names, reports, strict=True) if not report.error
    ]
    coloured = [name for name, report in readable if report.colour]
    several = [name for name, report in readable if report.frames > 1]
    notes = [
        f"{len(coloured)} of {len(readable)} images have colour; written as"
        f" {'colour' if channels == 3 else 'grayscale'}"
    ]
    if several:
        notes.append(
            f"only the first frame is used of files with several: {len(several)}, such as"
            f" {several[0]}"
        )
    if others := [(name, report.space) for name, report in readable if report.space]:
        notes.append(
            f"{len(others)} of {len(readable)} images state another colour space than sRGB, and"
            f" their values are used as they are: such as {others[0][0]}, {others[0][1]}"
        )
    clipped = [(report.outside, name) for name, report in readable if report.outside]
    if clipped and limits:
        share, name = max(clipped, key=lambda item: item[0])
        notes.append(
            f"values outside --range {limits[0]:g} {limits[1]:g} were clipped in"
            f" {len(clipped)} images, most in {name}: {share:.2%} of its values"
        )
    return notes


def fitted(names: list[str], reports: Sequence[ImageReport], size: Size, fit: str) -> str:
    """Return a note about how the readable ones of these images are brought to `size`."""
    both = zip(names, reports, strict=True)
    return fit_note([(name, one.shape) for name, one in both if not one.error], size, fit)


def decoding_of(args: Arguments) -> int:
    """Return how files are read: that of a set that was begun, else that of this version."""
    return getattr(args, "decoding", None) or image_files.DECODING


def inspect_image(
    file: Path | BinaryIO,
    size: Size,
    limits: Sequence[float] | None = None,
    fit: str = "crop",
    decoding: int = image_files.DECODING,
) -> ImageReport:
    """Decode one image and examine what would be made of it."""
    # Image decoders raise any exception on damaged files: OSError, SyntaxError, struct.error,
    # IndexError, zlib.error.
    try:
        image, _ = image_files.picture(file, limits, decoding=decoding)
    except Exception as error:
        return ImageReport(error=f"unreadable: {reason(error)}")
    values = np.asarray(image)
    crop = np.asarray(to_size(image, size, fit))
    shorter, least = min(kept(image.size, size, fit)), LowQuality.TINY * min(height_width(size))
    saturated = float(np.mean(crop >= LowQuality.SATURATED_LEVEL))
    quality_issue = ""
    if shorter < least:
        quality_issue = f"tiny: shorter side {shorter} pixels, less than {least:g}"
    elif saturated > LowQuality.SATURATED_SHARE:
        quality_issue = (
            f"saturated: {saturated:.1%} of the values at the top, more than"
            f" {LowQuality.SATURATED_SHARE:.0%}"
        )
    elif float(crop.std()) < LowQuality.BLANK_STD:
        quality_issue = (
            f"blank: standard deviation {crop.std():.2f} of 255 levels, less than"
            f" {LowQuality.BLANK_STD:g}"
        )
    colour = values.ndim == 3 and bool(np.any(values != values[..., :1]))
    # A gray image is the same whether its file has one channel or three.
    plain = values if values.ndim == 2 or colour else values[..., 0]
    digest = hashlib.sha256(
        f"{plain.shape}".encode() + np.ascontiguousarray(plain, dtype="<f4").tobytes()
    ).hexdigest()
    return ImageReport(
        digest,
        image.size,
        colour,
        image.info["frames"],
        image.info["outside"],
        quality_issue=quality_issue,
        space=image.info["space"],
    )


def inspect_all(
    inspect: Callable[[Any], Any],
    items: Sequence[Any],
    names: list[str],
    workers: int,
    shared: Shared | None = None,
    kind: type[ImageReport] = ImageReport,
) -> tuple[list[ImageReport], list[SampleIssue]]:
    """Return `inspect(item)` of every item, computed in `workers` processes, and all issues.

    An issue is an unreadable image, low quality, or the pixels of an earlier image.
    """

    def parse(fields: dict[str, Any]) -> ImageReport:
        return kind(**fields | {"shape": tuple(fields["shape"])})

    reports = examine(shared, inspect, items, workers, "images", parse)
    issues: list[SampleIssue] = []
    first: dict[str, str] = {}
    for i, (name, report) in enumerate(zip(names, reports, strict=True)):
        problem = report.error or report.quality_issue
        if not report.error and report.digest in first:
            problem = f"duplicate of {first[report.digest]}"
        elif not report.error:
            first[report.digest] = name
        if problem:
            issues.append(SampleIssue(i, name, problem, usable=not report.error))
    return reports, issues


def decode_again(
    path: Path, digest: bytes, limits: Sequence[float] | None, decoding: int
) -> tuple[Image.Image, dict[str, Any]]:
    """Decode a file that was examined; DataError where it is not the same, with this sha256."""
    try:
        file = path.read_bytes()
        # a changed file might be a copy of one on the other side of the split
        if hashlib.sha256(file).digest() != digest:
            raise DataError(
                "it was changed in the meantime; run the same command again, with a new folder"
            )
        return image_files.picture(io.BytesIO(file), limits, decoding=decoding)
    except Exception as error:
        raise DataError(
            f"{shown(str(path))} could be read when it was checked, not any more: {reason(error)}"
        ) from error


def encode(
    image: Image.Image, size: Size, channels: int, payload: str, fit: str = "crop"
) -> tuple[str, bytes]:
    """Encode a decoded image, brought to this size, as (field, bytes)."""
    return image_codec.encode(image_files.as_bytes(to_size(image, size, fit), channels), payload)


def reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image in a format of Pillow, or its header is damaged"
    return str(error) if isinstance(error, DataError) else f"{error} ({type(error).__name__})"
