"""Pairs of images in two folders, such as photographs before and after, at one size.

An image of the input folder is paired with the image of the target folder of the same name,
extensions aside; files without a partner are refused, all of them by name. Both are converted as
`distgan shard images` does, with the same `--fit`, so they must have the same aspect.

A sample is `key.input.png`, `key.target.png` (or .jpg, .npy: `--payload`) and `key.json`: file,
width, height and mode of both originals.
"""

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distgan.core.arguments import Arguments
from distgan.core.file_tree import shown
from distgan.shards.audio.pairs import INPUT, TARGET, FilePairs
from distgan.shards.codecs import image as image_codec
from distgan.shards.codecs.fitting import Size
from distgan.shards.codecs.image_files import DECODING, EXTENSIONS
from distgan.shards.sources import audio, images
from distgan.shards.sources._base import Shared, SourceReport

EXAMPLES = [
    (
        "images of equal names in before and after",
        "distgan shard image_pairs OUT --input before --target after --size 64",
    ),
    (
        "in photos/input and photos/target, 256 pixels wide and 128 high, in colour",
        "distgan shard image_pairs OUT --from photos --size 256x128 --channels 3",
    ),
]
RECIPE, KIND = None, "image_pair"
KEPT = images.KEPT
OPTIONS = (
    *audio.FOLDERS,
    *(option for option in images.OPTIONS if option.name not in ("from", "labels")),
)


@dataclass(frozen=True)
class PairReport(images.ImageReport):
    """The result of examining both images of a pair."""

    target: str = ""  # the digest of the target


def check_options(args: Arguments) -> Iterator[str]:
    """Yield the errors of options that do not fit together."""
    yield from audio.check_options(args)
    yield from images.check_options(args)


class Source:
    def __init__(self, args: Arguments):
        if args.folder:
            self.files = FilePairs.in_one_folder(Path(args.folder), EXTENSIONS, True)
        else:
            self.files = FilePairs(Path(args.input), Path(args.target), EXTENSIONS, True)
        self.size, self.channels = args.size, args.channels
        self.range, self.payload, self.fit = args.range, args.payload, args.fit
        self.decoding = images.decoding_of(args)
        self.shared: Shared | None = None
        self.keys = self.files.keys
        self.options: dict[str, Any] = {
            "size": args.size,
            "fit": args.fit,
            "channels": args.channels,
            "range": args.range,
            "payload": args.payload,
            "decoding": self.decoding,
            "from": self.files.contents(),
        }
        self.origin: dict[str, Any] = {"folders": [str(folder) for folder in self.files.folders]}
        self.sample: dict[str, Any] = {}
        self.reports: list[Any] = []

    def check(self, workers: int) -> SourceReport:
        """Decode every image once; without --channels, choose 3 if any image has colour."""
        inspect = functools.partial(
            inspect_pair,
            size=self.size,
            limits=self.range,
            fit=self.fit,
            decoding=self.decoding,
        )
        paths = [self.files.paths(i) for i in range(len(self.keys))]
        names = self.files.names
        self.reports, issues = images.inspect_all(
            inspect, paths, names, workers, self.shared, PairReport
        )
        if self.channels is None:
            self.channels = 3 if any(report.colour for report in self.reports) else 1
        field = image_codec.FIELDS[self.payload]
        self.sample = {
            "kind": "image_pair",
            "channels": self.channels,
            "size": self.size,
            "fields": [f"{INPUT}.{field}", f"{TARGET}.{field}"],
        }
        notes = images.notes_of(names, self.reports, self.channels, self.range)
        notes.append(images.fitted(names, self.reports, self.size, self.fit))
        return SourceReport(issues, notes)

    def group(self, i: int) -> str:
        """Return the hash of the target's pixels: none of training may be in validation."""
        return self.reports[i].target

    def make(self, i: int) -> dict[str, Any]:
        sample: dict[str, Any] = {"__key__": self.keys[i]}
        record: dict[str, Any] = {}
        sides = zip((INPUT, TARGET), self.files.paths(i), self.files.digests[i], strict=True)
        for side, path, digest in sides:
            image, original = images.decode_again(path, digest, self.range, self.decoding)
            field, data = images.encode(image, self.size, self.channels, self.payload, self.fit)
            sample[f"{side}.{field}"] = data
            record[side] = {"file": shown(path.name), **original}
        return sample | {"json": json.dumps(record).encode()}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "reports": []}


def inspect_pair(
    paths: tuple[Path, Path],
    size: Size,
    limits: Sequence[float] | None = None,
    fit: str = "crop",
    decoding: int = DECODING,
) -> PairReport:
    """Examine both images of a pair as `images.inspect_image` does, and whether they are one."""
    both = [images.inspect_image(path, size, limits, fit, decoding) for path in paths]
    sides = list(zip((INPUT, TARGET), both, strict=True))
    if errors := [f"{side} is {report.error}" for side, report in sides if report.error]:
        return PairReport(error="; ".join(errors))
    (width, height), (other_width, other_height) = (report.shape for report in both)
    # One pixel more or less is rounding.
    if abs(width * other_height - height * other_width) > max(*both[0].shape, *both[1].shape):
        return PairReport(
            error=f"{INPUT} is {width}x{height} pixels, {TARGET} {other_width}x{other_height}: of"
            " another aspect, so that the same place would show other parts"
        )
    issues = [f"{side} is {report.quality_issue}" for side, report in sides if report.quality_issue]
    if both[0].digest == both[1].digest:
        issues.append(f"{INPUT} and {TARGET} are the same picture")
    return PairReport(
        f"{both[0].digest} {both[1].digest}",
        both[0].shape,
        any(report.colour for report in both),
        max(report.frames for report in both),
        max(report.outside for report in both),
        quality_issue="; ".join(issues),
        space=both[0].space or both[1].space,
        target=both[1].digest,
    )
