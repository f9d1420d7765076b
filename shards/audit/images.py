"""Measure images, and find duplicates and near-duplicates.

Near-duplicates are found in two steps. A hash of 64 bits, the signs of 8 x 8 low frequencies of a
cosine transform of 32 x 32 block means (Zauner 2010, "Implementation and Benchmarking of Perceptual
Image Hash Functions"), selects for each image the most similar one (`nearest`: all pairs of a small
set, neighbours in random orders of a large one); the correlation of block means decides. The hash
alone is not enough: of 2,700 different particle images 5 % have another one within 8 bits, but none
has one with a correlation above 0.95. Rescaled, brightened, noisy or JPEG copies are found;
mirrored or rotated ones are not, nor thin lines moved by a pixel.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy.fft import dctn

from distgan.core import console
from distgan.core.errors import DataError
from distgan.core.rng import numpy_generator
from distgan.shards.audit.findings import Checks, Finding
from distgan.shards.audit.shard_integrity import Place, read
from distgan.shards.codecs import array, image_files
from distgan.shards.codecs import image as image_codec
from distgan.shards.codecs.fitting import height_width
from distgan.shards.format.manifest import DATASET

BITS = 8  # of 64: two images within this distance are compared
BLOCKS = 32
_MODES = {1: "L", 3: "RGB"}
_SATURATED = 254
EXACT = 4000  # images of which all pairs are compared
TABLES, NEIGHBOURS = 64, 8  # of more: orders, and hashes compared with each in one order
NONE = np.iinfo(np.int64).max
_PLACES = 1 << 40


@dataclass(frozen=True)
class ImageReport:
    """The measured values of one image; only `place` and `errors` if it cannot be decoded."""

    place: Place
    errors: dict[str, str]  # check -> detail
    # by name of the check; also mean, low, high: levels at 1 and 99 %
    values: dict[str, float] = field(default_factory=dict)
    digest: bytes = b""
    hash: int = 0
    blocks: bytes = b""  # uint8 [32, 32]
    target: bytes = b""  # of a pair, the digest of its target; hash and blocks are the target's


class Examiner:
    """Examine chunks of samples; pickled to worker processes."""

    def __init__(self, sample: dict[str, Any], fields: list[str]):
        self.size, self.channels = height_width(sample["size"]), sample["channels"]
        self.decoding = sample.get("decoding", 1)
        usual = [field for field in fields if field.split("|")[0] in image_files.FIELDS][:1]
        self.fields = sample.get("fields") or [sample.get("field") or usual[0]]
        if not set(self.fields) <= set(fields):
            raise DataError(
                f"{DATASET} names {self.fields} as images; the samples have the fields {fields}"
            )

    def __call__(self, chunk: list[Place]) -> list[ImageReport]:
        reports = []
        for place in chunk:
            sample = read(place)
            sides = [self._inspect(place, sample[field], field) for field in self.fields]
            reports.append(sides[0] if len(sides) == 1 else _pair(*sides))
        return reports

    def pixels(self, place: Place) -> np.ndarray | None:
        """Decode an image to uint8 [height, width, channels], both of a pair side by side; None if
        that fails.
        """
        outs = [np.empty((*self.size, self.channels), np.uint8) for _ in self.fields]
        try:
            sample = read(place)
            for out, field in zip(outs, self.fields, strict=True):
                image_files.decode(sample[field], field, out, self.decoding)
        except Exception:
            return None
        return np.concatenate(outs, 1)

    def _inspect(self, place: Place, data: bytes, field: str) -> ImageReport:
        # Image decoders raise anything on damaged files: OSError, SyntaxError, struct.error,
        # zlib.error.
        try:
            shape, mode = self._header(data, field)
        except Exception as error:
            return ImageReport(place, {"undecodable": _reason(error)})
        if shape != self.size:
            height, width = self.size
            return ImageReport(
                place, {"size": f"{shape[1]}x{shape[0]} pixels, expected {width}x{height}"}
            )
        expected = _MODES[self.channels]
        errors = {} if mode == expected else {"mode": f"{mode}, expected {expected}"}
        levels = np.empty((*self.size, self.channels), np.uint8)
        try:
            image_files.decode(data, field, levels, self.decoding)
        except Exception as error:
            return ImageReport(place, {"undecodable": _reason(error)})
        low, high = np.percentile(levels, (1, 99))
        values = {
            "contrast": float(levels.std()),
            "range": float(levels.max()) - float(levels.min()),
            "saturated": float(np.mean(levels >= _SATURATED)),
            "mean": float(levels.mean()),
            "low": float(low),
            "high": float(high),
        }
        gray = levels[..., 0] if self.channels == 1 else np.rint(levels.mean(2)).astype(np.uint8)
        blocks = np.asarray(Image.fromarray(gray).resize((BLOCKS, BLOCKS), Image.Resampling.BOX))
        return ImageReport(
            place,
            errors,
            values,
            hashlib.sha256(levels.data).digest()[:16],
            perceptual_hash(blocks),
            blocks.tobytes(),
        )

    def _header(self, data: bytes, field: str) -> tuple[tuple[int, ...], str]:
        """Return ((height, width), mode) from the header: as it is decoded, or as it is stored in
        sets whose images are decoded as they were encoded.
        """
        if field.rpartition(".")[2] == "npy":
            shape, _ = array.header(data)
            modes = {(): "L", (1,): "L", (3,): "RGB"}
            return shape[:2], modes.get(shape[2:], f"{list(shape)}")
        if self.decoding > 1:
            header = image_files.header(io.BytesIO(data))
            mode = _MODES[self.channels] if header.is_gray or self.channels == 3 else "RGB"
            return (header.height, header.width), mode
        with image_codec.opened(io.BytesIO(data), ("PNG", "JPEG")) as image:
            return (image.height, image.width), image.mode


def _pair(source: ImageReport, target: ImageReport) -> ImageReport:
    """Return one report of both images of a pair: the worse values, and the target's levels."""
    errors: dict[str, str] = {}
    for side, report in (("input", source), ("target", target)):
        for name, detail in report.errors.items():
            errors[name] = "; ".join(filter(None, (errors.get(name), f"{side}: {detail}")))
    if not (source.values and target.values):
        return ImageReport(target.place, errors)
    if source.digest == target.digest:
        errors["identical"] = "input and target have the same pixels"
    values = dict(target.values)
    for name, worse in (("contrast", min), ("range", min), ("saturated", max)):
        values[name] = worse(source.values[name], target.values[name])
    digests = source.digest + target.digest, target.digest
    return ImageReport(
        target.place, errors, values, digests[0], target.hash, target.blocks, digests[1]
    )


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text has a memory address
        return "not a PNG or JPEG image, or its header is damaged"
    return f"{error} ({type(error).__name__})"


def perceptual_hash(blocks: np.ndarray) -> int:
    """Hash uint8 [32, 32] to 64 bits.

    Without the mean and the frequencies along one axis only, which depend on the lighting.
    """
    low = dctn(blocks.astype(np.float32))[1:9, 1:9].ravel()
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes())


def findings(
    reports: list[ImageReport],
    checks: Checks,
    differ: Callable[[Place, Place], str] = lambda one, other: "",
) -> list[Finding]:
    """Return all findings about these images; `differ` says how the labels of two differ."""
    result: list[Finding] = []
    for report in reports:
        for name, detail in report.errors.items():
            of = "image pairs" if name == "identical" else "images"
            checks.judge(result, of, name, report.place, 1.0, detail)
        for name in ("contrast", "range", "saturated"):
            if name in report.values:
                checks.judge(result, "images", name, report.place, report.values[name], "")
    decoded = [report for report in reports if report.values]
    copies = _copies(decoded, checks, result, differ)
    distinct = [report for i, report in enumerate(decoded) if i not in copies]
    _near_duplicates([r for r in distinct if r.values["range"] > 0], checks, result)
    return result


def _copies(
    reports: list[ImageReport],
    checks: Checks,
    result: list[Finding],
    differ: Callable[[Place, Place], str],
) -> set[int]:
    """Report images with equal pixels; return the indices of copies of an earlier one.

    Of pairs, those with both images equal, and a target that is in both splits; one target with
    several inputs is no finding.
    """
    first: dict[bytes, ImageReport] = {}
    targets: dict[bytes, ImageReport] = {}
    copies: set[int] = set()
    for i, report in enumerate(reports):
        other, what = first.setdefault(report.digest, report), "pixels"
        if other is report and report.target:
            other, what = targets.setdefault(report.target, report), "target"
        if other is report:
            continue
        copies.add(i)
        leaks = other.place.split != report.place.split
        detail = f"the {what} of {other.place}"
        contradiction = differ(report.place, other.place) if what == "pixels" else ""
        if contradiction:
            text = f"{detail}, but {contradiction}"
            checks.judge(result, "labels", "contradiction", report.place, 1.0, text, other.place)
        if leaks or what == "pixels" and not contradiction:
            name = "duplicate-leak" if leaks else "duplicate"
            checks.judge(result, "images", name, report.place, 1.0, detail, other.place)
    return copies


def _near_duplicates(reports: list[ImageReport], checks: Checks, result: list[Finding]) -> None:
    """Report images that resemble an earlier one of their split, or one of the split before."""
    if len(reports) < 2:
        return
    hashes = np.array([report.hash for report in reports], np.uint64)
    names = {name: k for k, name in enumerate({report.place.split for report in reports})}
    splits = np.array([names[report.place.split] for report in reports], np.int8)
    with console.bar("looking for near-duplicates", len(reports), "images") as bar:
        same, other = nearest(hashes, splits, bar.advance)
    for row in np.flatnonzero(np.minimum(same, other) < NONE).tolist():
        for name, best in (("near-duplicate", same), ("near-leak", other)):
            if best[row] == NONE:
                continue
            distance, earlier = divmod(int(best[row]), _PLACES)
            report, first = reports[row], reports[earlier]
            detail = f"like {first.place}, hashes {distance} bits apart"
            value = _correlation(report.blocks, first.blocks)
            checks.judge(result, "images", name, report.place, value, detail, first.place)


def nearest(
    hashes: np.ndarray, splits: np.ndarray, advance: Callable[[int], None] = lambda n: None
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of uint64 [n] the nearest earlier one within BITS, of its split and of the
    other: distance * _PLACES + its index, or NONE.

    Up to EXACT hashes all pairs are compared. Of more, in each of TABLES orders, by so many bits
    drawn at random that two different hashes rarely share them, each with the NEIGHBOURS before it
    that share them (Indyk and Motwani 1998): n log n. Of a million, a pair 4 bits apart is missed
    once in 10^8, 6 bits apart once in 10,000, 8 bits apart once in 100.
    """
    best = np.full((2, len(hashes)), NONE)  # of the same split, of the other
    if len(hashes) <= EXACT:
        for row in range(1, len(hashes)):
            distance = np.bitwise_count(hashes[row] ^ hashes[:row])
            near = np.flatnonzero(distance <= BITS)
            _keep(best, np.full(len(near), row), near, distance[near], splits)
        advance(len(hashes))
        return best[0], best[1]
    rng = numpy_generator(0, "audit/near-duplicates")
    bits = min(24, int(np.ceil(np.log2(len(hashes)))))
    for table in range(TABLES):
        chosen = rng.choice(64, bits, replace=False).astype(np.uint64)
        masked = hashes & np.bitwise_or.reduce(np.uint64(1) << chosen)
        order = np.argsort(masked, kind="stable")
        masked = masked[order]
        for step in range(1, NEIGHBOURS + 1):
            at = np.flatnonzero(masked[step:] == masked[:-step])
            later, earlier = order[at + step], order[at]  # stable: in the order of the samples
            distance = np.bitwise_count(hashes[later] ^ hashes[earlier])
            near = distance <= BITS
            _keep(best, later[near], earlier[near], distance[near], splits)
        advance(len(hashes) * (table + 1) // TABLES - len(hashes) * table // TABLES)
    return best[0], best[1]


def _keep(
    best: np.ndarray,
    later: np.ndarray,
    earlier: np.ndarray,
    distance: np.ndarray,
    splits: np.ndarray,
) -> None:
    values = distance.astype(np.int64) * _PLACES + earlier
    is_other = splits[later] != splits[earlier]
    np.minimum.at(best, (is_other.astype(np.intp), later), values)


def _correlation(first: bytes, second: bytes) -> float:
    a, b = (np.frombuffer(blocks, np.uint8).astype(np.float64) for blocks in (first, second))
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9))
