"""What is checked, from which value on it is a finding, and where the value comes from."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from distgan.core.errors import ConfigError

FAIL, WARN = "FAIL", "WARN"


@dataclass(frozen=True)
class Check:
    """A value above `warn` or `fail` is a finding, or below, if `low`.

    None: never. 0 stands for "any".
    """

    name: str
    of: str  # what is counted: "files" and "members" for integrity, else "images" or "pairs"
    warn: float | None
    fail: float | None
    unit: str
    meaning: str
    source: str = ""
    low: bool = False

    @property
    def measured(self) -> bool:
        """Whether every sample has a value, not only those with a finding."""
        return self.of in ("images", "pairs") and self.unit not in ("", "r")

    def level(self, value: float) -> str | None:
        """FAIL, WARN or None; what is not a number is no finding here (`not-finite` is one)."""
        for level, threshold in ((FAIL, self.fail), (WARN, self.warn)):
            if threshold is not None and (value < threshold if self.low else value > threshold):
                return level
        return None

    def threshold(self, level: str | None) -> float | None:
        return self.fail if level == FAIL else self.warn


_RESIDUAL = "0.5 sample limits SI-SDR to 13 dB at 16 kHz, 2 samples to below 0 dB (measured)"
CHECKS = (
    Check(
        "dataset",
        "files",
        None,
        0,
        "",
        "dataset.json is missing, unfinished, or not that of these splits",
    ),
    Check("manifest", "files", None, 0, "", "manifest.json is missing or damaged"),
    Check("shard", "files", None, 0, "", "a shard is missing, cannot be read, or has another size"),
    Check("sha256", "files", None, 0, "", "the bytes of a shard are not those that were written"),
    Check(
        "index",
        "files",
        None,
        0,
        "",
        "the index of a shard is missing, damaged, stale, or contradicts the manifest",
    ),
    Check("sums", "files", None, 0, "", "SHA256SUMS is missing or contradicts manifest.json"),
    Check("crc32", "members", None, 0, "", "the bytes of a member are not those that were written"),
    Check(
        "header",
        "members",
        None,
        0,
        "",
        "the tar header of a member is damaged or contradicts the index",
    ),
    Check(
        "group-leak",
        "members",
        None,
        0,
        "",
        "a group (recording, picture) has samples in both splits",
    ),
    Check("key-repeated", "members", 0, None, "", "a key occurs in both splits"),
    Check("left-over", "files", 0, None, "", "a temporary file of a writer that was killed"),
    Check("stray", "files", 0, None, "", "a file that is not part of the data"),
    Check(
        "unseen",
        "files",
        0,
        None,
        "",
        "dataset.json does not say what one sample is, or images have several sizes: what is inside"
        " was not looked at",
    ),
    Check("undecodable", "images", None, 0, "", "no image, or a damaged one"),
    Check("size", "images", None, 0, "", "not of the size that dataset.json states"),
    Check(
        "mode",
        "images",
        0,
        None,
        "",
        "not gray or RGB as dataset.json states; converted at each reading",
    ),
    Check(
        "contrast",
        "images",
        5,
        2,
        "levels",
        "blank: standard deviation of the pixels, of 255 levels",
        "2: as `distgan shard images`",
        low=True,
    ),
    Check(
        "range",
        "images",
        32,
        None,
        "levels",
        "brightest minus darkest pixel, of 255 levels",
        low=True,
    ),
    Check(
        "saturated",
        "images",
        0.5,
        0.95,
        "share",
        "share of pixels at level 254 or 255",
        "0.95: as `distgan shard images`",
    ),
    Check("duplicate", "images", 0, None, "", "the same pixels as another image of the split"),
    Check(
        "duplicate-leak", "images", None, 0, "", "the same pixels as an image of the other split"
    ),
    Check(
        "near-duplicate",
        "images",
        0.95,
        None,
        "r",
        "correlation with another image of the split; "
        "candidates have 64-bit DCT hashes within 8 bits",
        "JPEG 30, brightness, rescaling, light noise: r > 0.95; one pair of 40,000 distinct"
        " particle images: 0.956",
    ),
    Check("near-leak", "images", 0.95, 0.98, "r", "the same, with an image of the other split"),
    Check("undecodable", "pairs", None, 0, "", "no sound, or damaged sound"),
    Check(
        "format",
        "pairs",
        None,
        0,
        "",
        "rate, channels, type or length are not those that dataset.json states",
    ),
    Check("not-finite", "pairs", None, 0, "values", "NaN or infinity"),
    Check(
        "length",
        "pairs",
        0,
        0.01,
        "s",
        "difference between the lengths of input and target",
        "half a frame of 20 ms; lhotse tolerates 0.5 s",
    ),
    Check("identical", "pairs", None, 0, "", "input and target are the same"),
    Check(
        "silent",
        "pairs",
        None,
        -60,
        "dBFS",
        "peak of the more silent side",
        "zeros test of the DNS-Challenge",
        low=True,
    ),
    Check(
        "active",
        "pairs",
        0.2,
        0.05,
        "share",
        "target: frames of 20 ms above -40 dB of their 95th percentile",
        "URGENT 2024: 0.2",
        low=True,
    ),
    Check("dc", "pairs", 0.01, None, "of 1", "mean, of full scale; the worse side"),
    Check(
        "clipped",
        "pairs",
        1e-4,
        5e-3,
        "share",
        "values in runs of 3 and more at 0.99 of a peak above 0.9; the worse side",
        "runs of 3: the DNS-Challenge's clip test",
    ),
    Check(
        "level",
        "pairs",
        6,
        20,
        "dB",
        "level of the input against the target, over active frames, either sign",
        "gains of DeepFilterNet's own data: -6…6 dB",
    ),
    Check(
        "correlation",
        "pairs",
        None,
        0.3,
        "|rho|",
        "below: not the same utterance",
        "mismatched pairs: 0.02…0.12, matched: 0.57 and more (measured)",
        low=True,
    ),
    Check(
        "correlation-room",
        "pairs",
        0.3,
        0.15,
        "|rho|",
        "the same where KEY.json names a room (rir)",
        "a fifth of matched pairs in heavy reverberation: below 0.3 (measured)",
        low=True,
    ),
    Check(
        "doubt",
        "pairs",
        0,
        None,
        "",
        "the source that made the pair says in KEY.json what it doubts",
    ),
    Check(
        "delay",
        "pairs",
        0.5,
        2,
        "samples",
        "what is left between input and target, either sign",
        _RESIDUAL,
    ),
    Check(
        "drift",
        "pairs",
        1,
        None,
        "samples",
        "delay of the last third minus that of the first, either sign",
        _RESIDUAL,
    ),
    Check("polarity", "pairs", None, 0, "", "the input is inverted"),
    Check(
        "si-sdr-low",
        "pairs",
        -10,
        None,
        "dB",
        "SI-SDR of the input: little of the target is left",
        low=True,
    ),
    Check("si-sdr-high", "pairs", 40, None, "dB", "SI-SDR of the input: nothing to learn"),
    Check(
        "snr-declared",
        "pairs",
        0.01,
        None,
        "dB",
        "declared snr_db outside the range that dataset.json declares, by so much",
    ),
    Check(
        "denoiser",
        "pairs",
        3,
        10,
        "dB",
        "how far the SI-SDR of the input is below the declared SNR, at most 15 dB: harm (not with"
        " reverberation)",
    ),
    Check(
        "bandwidth",
        "pairs",
        0.6,
        None,
        "of Nyquist",
        "target: highest frequency above -80 dB of its spectrum's peak",
        "twice upsampled speech: 0.53, genuine: 0.61 and more (measured); URGENT 2024 takes -50 dB",
        low=True,
    ),
    Check(
        "duplicate", "pairs", 0, None, "", "the same input and target as another pair of the split"
    ),
    Check("duplicate-leak", "pairs", None, 0, "", "the same target as a pair of the other split"),
)
# What a waveform that is no sound need not have: a detector's pulse is shaped on purpose, so its
# levels, mean, edges and delay differ between input and target.
SOUND_ONLY = (
    "silent",
    "active",
    "dc",
    "clipped",
    "level",
    "correlation",
    "correlation-room",
    "delay",
    "drift",
    "polarity",
    "si-sdr-low",
    "si-sdr-high",
    "denoiser",
    "bandwidth",
)

SIGNED = ("length", "dc", "level", "delay", "drift")  # graded by their magnitude


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and where."""

    check: str
    level: str
    split: str
    shard: str
    key: str
    value: float | None
    threshold: float | None
    unit: str
    detail: str
    other: str = ""  # split/key of the sample it is like


class Checks:
    """The checks that apply to this data, with the thresholds of this call."""

    def __init__(self, changed: Iterable[str] = ()):
        self.all = list(CHECKS)
        for text in changed:
            self._change(text)

    def _change(self, text: str) -> None:
        """`delay=1,4` sets WARN and FAIL; `-` stands for never."""
        name, _, values = text.partition("=")
        try:
            warn, fail = (None if value == "-" else float(value) for value in values.split(","))
            if not all(limit is None or math.isfinite(limit) for limit in (warn, fail)):
                raise ValueError("not finite")
        except ValueError as error:
            raise ConfigError(
                f"--threshold {text}: expected NAME=WARN,FAIL, such as delay=1,4 or"
                " near-leak=0.98,- ('-': never)"
            ) from error
        known = sorted({check.name for check in CHECKS if check.unit})
        if name not in known:
            raise ConfigError(
                f"--threshold {text}: no check {name!r} has thresholds; there are:"
                f" {', '.join(known)}"
            )
        self.all = [
            replace(check, warn=warn, fail=fail) if check.name == name else check
            for check in self.all
        ]

    def of(self, *kinds: str) -> list[Check]:
        return [check for check in self.all if check.of in kinds]

    def named(self, name: str, *kinds: str) -> Check:
        return next(check for check in self.of(*kinds) if check.name == name)

    def judge(
        self,
        found: list[Finding],
        kind: str,
        name: str,
        place: Any,
        value: float,
        detail: str,
        other: Any = "",
    ) -> None:
        """Add a finding about the sample at `place` (see samples.Place) if the value is one.

        `other`: the place of the sample it is like.
        """
        check = self.named(name, kind)
        if level := check.level(value):
            told = (value, check.threshold(level)) if check.unit else (None, None)
            found.append(
                Finding(
                    name,
                    level,
                    place.split,
                    place.shard.name,
                    place.key,
                    *told,
                    check.unit,
                    detail,
                    str(other),
                )
            )


class FileFindings:
    """Those about files and tar members, which have no value."""

    def __init__(self, checks: Checks):
        self.checks, self.list = checks, []

    def add(self, name: str, split: str, shard: str, key: str, detail: str) -> None:
        check = self.checks.named(name, "files", "members")
        level = check.level(1)
        if level:
            self.list.append(Finding(name, level, split, shard, key, None, None, "", detail))


def summary(
    check: Check, findings: list[Finding], total: int, graded: bool, values: list[float]
) -> dict[str, Any]:
    """One row of the table: how many findings, of how many, the worst, and how the measured values
    are spread. Level "none": not measurable here.
    """
    own = [finding for finding in findings if finding.check == check.name]
    finite = sorted(value for value in values if math.isfinite(value))
    clean = "info" if not graded else "ok" if finite or not check.measured else "none"
    level = FAIL if any(finding.level == FAIL for finding in own) else WARN if own else clean
    spread = (
        {name: finite[round(part * (len(finite) - 1))] for name, part in SPREAD.items()}
        if finite
        else None
    )
    measured = [finding for finding in own if finding.value is not None]
    worst = (min if check.low else max)(
        measured, key=lambda finding: finding.value, default=own[0] if own else None
    )
    return {
        "check": check.name,
        "of": check.of,
        "unit": check.unit,
        "warn": check.warn,
        "fail": check.fail,
        "low": check.low,
        "level": level,
        "fails": sum(finding.level == FAIL for finding in own),
        "warns": sum(finding.level == WARN for finding in own),
        "total": total,
        "share": len(own) / total if total else 0.0,
        "measured": spread,
        "worst": asdict(worst) if worst else None,
    }


SPREAD = {"min": 0.0, "p05": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}
