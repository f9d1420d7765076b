"""What one image is like, and which images are alike.

Near-duplicates are looked for in two steps. A hash of 64 bits, the signs of 8 x 8 low frequencies
of a cosine transform of 32 x 32 block means (Zauner 2010, "Implementation and Benchmarking of
Perceptual Image Hash Functions"), names for each image the one most like it; the correlation of
their block means decides. The hash alone would not do: of 2,700 different particle images 5 % have
another one within 8 bits, but none has one with a correlation above 0.95. Rescaled, brightened,
noisy or JPEG copies are found; mirrored or turned ones are not, nor thin lines moved by a pixel.
"""

import hashlib
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy.fft import dctn

from distgan.core import console
from distgan.shards.audit.findings import Checks, Finding
from distgan.shards.audit.samples import Place, read
from distgan.shards.codecs.image import IMAGE_FIELDS, decode

BITS = 8  # of 64: within so many, two images are compared
BLOCKS = 32
_MODES = {1: "L", 3: "RGB"}
_SATURATED = 254
_ROWS = 256  # hashes that are compared with all others at a time


@dataclass(frozen=True)
class ImageReport:
    """One image; only `place` and `errors` if it cannot be decoded."""

    place: Place
    errors: dict[str, str]  # check -> what is wrong
    values: dict[str, float] = field(
        default_factory=dict
    )  # by name of the check; also mean, low, high: levels at 1 and 99 %
    digest: bytes = b""
    hash: int = 0
    blocks: bytes = b""  # uint8 [32, 32]


class Examiner:
    """Called in worker processes with a chunk of places."""

    def __init__(self, sample: dict[str, Any], fields: list[str]):
        self.size, self.channels = sample["size"], sample["channels"]
        self.field = sample.get("field") or next(field for field in fields if field in IMAGE_FIELDS)

    def __call__(self, chunk: list[Place]) -> list[ImageReport]:
        return [self._inspect(place, read(place)[self.field]) for place in chunk]

    def pixels(self, place: Place) -> np.ndarray | None:
        """uint8 [size, size, channels], None if it cannot be decoded to that."""
        out = np.empty((self.size, self.size, self.channels), np.uint8)
        try:
            decode(read(place)[self.field], self.field, out)
        except Exception:
            return None
        return out

    def _inspect(self, place: Place, data: bytes) -> ImageReport:
        # Image decoders raise anything on damaged files: OSError, SyntaxError, struct.error,
        # zlib.error.
        try:
            shape, mode = _header(data, self.field)
        except Exception as error:
            return ImageReport(place, {"undecodable": _reason(error)})
        if shape != (self.size, self.size):
            return ImageReport(
                place, {"size": f"{shape[1]}x{shape[0]} pixels, {self.size}x{self.size} are due"}
            )
        errors = (
            {}
            if mode == _MODES[self.channels]
            else {"mode": f"{mode}, {_MODES[self.channels]} is due"}
        )
        pixels = np.empty((self.size, self.size, self.channels), np.uint8)
        try:
            decode(data, self.field, pixels)
        except Exception as error:
            return ImageReport(place, {"undecodable": _reason(error)})
        low, high = np.percentile(pixels, (1, 99))
        values = {
            "contrast": float(pixels.std()),
            "range": float(pixels.max()) - float(pixels.min()),
            "saturated": float(np.mean(pixels >= _SATURATED)),
            "mean": float(pixels.mean()),
            "low": float(low),
            "high": float(high),
        }
        gray = pixels[..., 0] if self.channels == 1 else np.rint(pixels.mean(2)).astype(np.uint8)
        blocks = np.asarray(Image.fromarray(gray).resize((BLOCKS, BLOCKS), Image.Resampling.BOX))
        return ImageReport(
            place,
            errors,
            values,
            hashlib.sha256(pixels).digest()[:16],
            perceptual_hash(blocks),
            blocks.tobytes(),
        )


def _header(data: bytes, field: str) -> tuple[tuple[int, ...], str]:
    """((height, width), mode) from the header."""
    if field == "npy":
        array = np.load(io.BytesIO(data), allow_pickle=False)
        return array.shape[:2], (
            "L"
            if array.ndim == 2 or array.shape[2:] == (1,)
            else "RGB"
            if array.shape[2:] == (3,)
            else f"{list(array.shape)}"
        )
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        return (image.height, image.width), image.mode


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text has an address of the memory
        return "not a PNG or JPEG image, or its header is damaged"
    return f"{error} ({type(error).__name__})"


def perceptual_hash(blocks: np.ndarray) -> int:
    """uint8 [32, 32] -> 64 bits.

    Without the mean and the frequencies along one axis only, which lighting decides.
    """
    low = dctn(blocks.astype(np.float32))[1:9, 1:9].ravel()
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes())


def findings(reports: list[ImageReport], checks: Checks) -> list[Finding]:
    """All findings about these images."""
    found: list[Finding] = []
    for report in reports:
        for name, detail in report.errors.items():
            checks.judge(found, "images", name, report.place, 1.0, detail)
        for name in ("contrast", "range", "saturated"):
            if name in report.values:
                checks.judge(found, "images", name, report.place, report.values[name], "")
    decoded = [report for report in reports if report.values]
    copies = _copies(decoded, checks, found)
    _alike(
        [
            report
            for i, report in enumerate(decoded)
            if i not in copies and report.values["range"] > 0
        ],
        checks,
        found,
    )
    return found


def _copies(reports: list[ImageReport], checks: Checks, found: list[Finding]) -> set[int]:
    """Tell of images with equal pixels.

    Returns the numbers of those that are a copy of an earlier one.
    """
    first: dict[bytes, ImageReport] = {}
    copies: set[int] = set()
    for i, report in enumerate(reports):
        other = first.setdefault(report.digest, report)
        if other is report:
            continue
        copies.add(i)
        if other.place.split == report.place.split:
            checks.judge(
                found,
                "images",
                "duplicate",
                report.place,
                1.0,
                f"the pixels of {other.place}",
                other.place,
            )
        else:
            checks.judge(
                found,
                "images",
                "duplicate-leak",
                report.place,
                1.0,
                f"the pixels of {other.place}",
                other.place,
            )
    return copies


def _alike(reports: list[ImageReport], checks: Checks, found: list[Finding]) -> None:
    """Tell of images that are almost those of another.

    Of one before it in its split, and of one of the split before.
    """
    if len(reports) < 2:
        return
    hashes = np.array([report.hash for report in reports], np.uint64)
    splits = np.array([report.place.split for report in reports])
    with console.bar("looking for near-duplicates", len(reports), "images") as bar:
        for start in range(0, len(reports), _ROWS):
            stop = min(start + _ROWS, len(reports))
            distance = np.bitwise_count(hashes[start:stop, None] ^ hashes[None, :stop])
            distance[np.arange(stop)[None] >= np.arange(start, stop)[:, None]] = (
                65  # each pair once
            )
            same = splits[start:stop, None] == splits[None, :stop]
            for name, wanted in (("near-duplicate", same), ("near-leak", ~same)):
                masked = np.where(wanted, distance, 65)
                for row in np.flatnonzero(masked.min(1) <= BITS):
                    nearest = int(masked[row].argmin())
                    _compare(
                        reports[start + row],
                        reports[nearest],
                        name,
                        int(masked[row, nearest]),
                        checks,
                        found,
                    )
            bar.advance(stop - start)


def _compare(
    report: ImageReport,
    other: ImageReport,
    name: str,
    bits: int,
    checks: Checks,
    found: list[Finding],
) -> None:
    a, b = (
        np.frombuffer(blocks, np.uint8).astype(np.float64)
        for blocks in (report.blocks, other.blocks)
    )
    a, b = a - a.mean(), b - b.mean()
    correlation = float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9))
    checks.judge(
        found,
        "images",
        name,
        report.place,
        correlation,
        f"like {other.place}, hashes {bits} bits apart",
        other.place,
    )
