"""Pairs of recordings in two folders, such as a dry and a processed one, whole or cut into
segments.

A file of the input folder is paired with the file of the target folder with the same name,
extensions aside. Channels are averaged, values written as 16-bit integers. Lengths may differ by
10 ms: both are cut to the shorter. A pair whose sides do not correlate is refused.

`--align` removes the delay between the two, by robust cross-correlation for each pair, including
fractions of a sample, and inverted polarity. Both members of a piece are the same part of the
recording; all pieces of a recording stay on one side of the split.

A sample is `key.input.wav`, `key.target.wav` (or .flac), and `key.json`: file, start of the piece,
correlation, and the delay removed.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distgan.core.arguments import Arguments, Option, number, one_of, switch, whole
from distgan.core.errors import ConfigError, DataError
from distgan.shards.audio import align
from distgan.shards.audio.pairs import (
    INPUT,
    SILENT_PEAK,
    TARGET,
    FilePairs,
    clipped_share,
    correction,
    named,
    pair_sample,
    read_span,
)
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.sources._base import SampleIssue, Shared, SourceReport, examine

EXAMPLES = [
    (
        "recordings of equal names in takes/input and takes/target, in pieces of 2 s",
        "distgan shard audio OUT --from takes --segment 2",
    ),
    (
        "two folders, at 16 kHz, with the delay between them removed",
        "distgan shard audio OUT --input amplified --target dry --rate 16000 --align",
    ),
]
RECIPE = "timbre"  # or waveform, with segment=N

RATES = (1000, 768_000)
SEGMENTS_S = (0.05, 3600)
LENGTH_TOLERANCE_S = 0.010
MAX_DELAY_S = 0.125
ALIGN_S = 60.0  # of a recording, to estimate its delay
DELAY_SAMPLES, DRIFT_SAMPLES = 0.5, 1.0  # more is reported
CLIPPED_SHARE = 1e-4
LARGEST_PEAK = 256  # floats above 1 are loud, above this of another scale
_MARGIN = 1024  # frames around a piece whose delay is not a whole number of samples


@dataclass(frozen=True)
class PairReport:
    """The result of examining a pair of recordings."""

    error: str = ""  # why it is not a pair
    quality_issue: str = ""
    begin: int = 0  # usable frames [begin, end) of the target
    end: int = 0
    uneven: int = 0  # frames by which the lengths differ
    delay: align.Delay = align.UNKNOWN


FOLDERS = (
    Option("from", f"folder with {INPUT}/ and {TARGET}/ in it", "FOLDER", dest="folder"),
    Option("input", "or: the files to start from, at any depth", "FOLDER"),
    Option("target", "and what they are to become, under the same names", "FOLDER"),
)
OPTIONS = (
    *FOLDERS,
    whole(
        "rate",
        "resample to it (default: the rate of the files, which must be one)",
        *RATES,
        metavar="HZ",
    ),
    number(
        "segment",
        "cut into pieces of this length; the last is kept if it has at least half of it (default:"
        " whole recordings)",
        *SEGMENTS_S,
        metavar="SECONDS",
    ),
    one_of(
        "payload",
        "wav is read fastest, flac is smaller",
        *audio_codec.WAVE_FIELDS,
        default="wav",
    ),
    switch("align", "take the delay between input and target out (it is reported without, too)"),
)


def check_options(args: Arguments) -> Iterator[str]:
    """Yield the errors of options that do not fit together."""
    folders = bool(args.input), bool(args.target)
    if folders != ((not args.folder,) * 2):
        yield "name the files by --from FOLDER, or by --input FOLDER and --target FOLDER"


class Source:
    def __init__(self, args: Arguments):
        if args.folder:
            self.files = FilePairs.in_one_folder(Path(args.folder))
        else:
            self.files = FilePairs(Path(args.input), Path(args.target))
        rate = args.rate or self.files.one_rate()
        if rate is None:
            raise ConfigError(f"none of the {len(self.files.names)} pairs can be read as sound")
        self.rate, self.payload, self.align = rate, args.payload, args.align
        self.segment = args.segment
        self.shared: Shared | None = None
        self.options: dict[str, Any] = {
            "from": self.files.contents(),
            "rate": rate,
            "segment": args.segment,
            "payload": args.payload,
            "align": args.align,
        }
        self.origin: dict[str, Any] = {"folders": [str(folder) for folder in self.files.folders]}
        self.sample: dict[str, Any] = {}
        self.keys = self.files.keys  # those of the recordings; `check` knows the pieces
        # (recording, first frame of the target, frames)
        self.pieces: list[tuple[int, int, int]] = []
        self.reports: list[PairReport] = []

    def check(self, workers: int) -> SourceReport:
        """Examine every recording once, and cut the usable ones into pieces."""
        recordings = range(len(self.files.names))

        def parse(fields: dict[str, Any]) -> PairReport:
            return PairReport(**fields | {"delay": align.Delay(**fields["delay"])})

        self.reports = examine(self.shared, self._inspect, recordings, workers, "recordings", parse)
        result = SourceReport(notes=list(self.files.notes))
        self.pieces, self.keys, short = [], [], []
        for i, report in enumerate(self.reports):
            name, key = self.files.names[i], self.files.keys[i]
            problem = report.error or report.quality_issue
            pieces = [(0, 0)] if report.error else self._cut(report.begin, report.end)
            for k, (first, frames) in enumerate(pieces):
                if problem:
                    issue = SampleIssue(len(self.pieces), name, problem, usable=not report.error)
                    result.issues.append(issue)
                self.pieces.append((i, first, frames))
                self.keys.append(key if self.segment is None else f"{key}-{k:05d}")
            if not pieces:
                short.append(name)
        if not self.pieces:
            raise ConfigError(f"--segment {self.segment:g}: no recording is half as long")
        if short:
            result.notes.append(
                f"{len(short)} recordings are shorter than half a segment, left out: {named(short)}"
            )
        self.sample = pair_sample(
            self.rate, self.payload, "int16", [frames for *_, frames in self.pieces if frames]
        )
        result.notes += self._notes()
        return result

    def _cut(self, begin: int, end: int) -> list[tuple[int, int]]:
        """Return (first frame, frames) of the pieces of a recording."""
        size = end - begin if self.segment is None else round(self.segment * self.rate)
        return [
            (at, min(size, end - at)) for at in range(begin, end, size) if 2 * (end - at) >= size
        ]

    def _notes(self) -> list[str]:
        usable = [
            (name, report)
            for name, report in zip(self.files.names, self.reports, strict=True)
            if not report.error
        ]
        uneven = [name for name, report in usable if report.uneven]
        delays = [abs(r.delay.samples) for _, r in usable if self.align and r.delay.samples]
        notes = []
        if uneven:
            notes.append(
                f"{len(uneven)} pairs differ in length by up to"
                f" {max(report.uneven for _, report in usable)} frames, cut to the shorter:"
                f" {named(uneven)}"
            )
        if delays:
            notes.append(
                f"delay removed from {len(delays)} pairs, up to {max(delays):.2f} samples; polarity"
                f" inverted in {sum(report.delay.polarity < 0 for _, report in usable)}"
            )
        return notes

    def _inspect(self, i: int) -> PairReport:
        try:
            source, target = (audio_codec.load(path, self.rate)[0] for path in self.files.paths(i))
        except DataError as error:
            return PairReport(error=str(error))
        if reason := self._error(source, target):
            return PairReport(error=reason)
        shorter, head = min(len(source), len(target)), round(ALIGN_S * self.rate)
        max_delay = min(round(MAX_DELAY_S * self.rate), shorter // 2)
        delay = align.estimate(target[:head], source[:head], max_delay)
        if delay.correlation < align.MISMATCH:
            return PairReport(
                error="input and target are not the same recording: correlation"
                f" {delay.correlation:.2f}, below {align.MISMATCH:g}"
            )
        issues = []
        for name, x in ((INPUT, source), (TARGET, target)):
            if (share := clipped_share(x)) > CLIPPED_SHARE:
                issues.append(f"{name} is clipped: {share:.2%} of its samples")
            elif np.abs(x).max() > 1:
                issues.append(f"{name} peaks at {np.abs(x).max():.2f}, clipped at 1 in 16 bits")
        if abs(delay.drift) > DRIFT_SAMPLES:
            issues.append(f"delay drifts by {delay.drift:.1f} samples")
        begin, end = 0, shorter
        if self.align:
            late = correction(delay)
            begin, end = max(0, math.ceil(-late)), min(len(target), math.floor(len(source) - late))
        elif abs(delay.samples) > DELAY_SAMPLES:
            side = "late" if delay.samples > 0 else "early"
            issues.append(
                f"input is {side} by {abs(delay.samples):.1f} samples; --align removes the delay"
            )
        if delay.polarity < 0 and not self.align:
            issues.append("polarity is inverted; --align corrects it")
        uneven = abs(len(source) - len(target))
        return PairReport("", ", ".join(issues), begin, end, uneven, delay)

    def _error(self, source: np.ndarray, target: np.ndarray) -> str:
        """Return why the two cannot be a pair, or ""."""
        for name, x in ((INPUT, source), (TARGET, target)):
            if not np.isfinite(x).all():
                return f"{name} has values that are not finite"
            if (peak := np.abs(x).max(initial=0)) < SILENT_PEAK:
                level = 20 * math.log10(max(peak, 1e-10))
                return f"{name} is silent: peak {level:.0f} dB of full scale"
            if peak > LARGEST_PEAK:
                return (
                    f"{name} has values up to {peak:g}, and sound is within ±1: these look like"
                    " integers in a file of floats; divide them by their full scale, such as 32768"
                )
        if abs(len(source) - len(target)) > LENGTH_TOLERANCE_S * self.rate:
            return (
                f"input has {len(source)} frames, target {len(target)}: more than"
                f" {1e3 * LENGTH_TOLERANCE_S:g} ms apart"
            )
        return ""

    def group(self, i: int) -> str:
        return self.files.groups[self.pieces[i][0]]

    def make(self, i: int) -> dict[str, Any]:
        recording, first, frames = self.pieces[i]
        report = self.reports[recording]
        source_path, target_path = self.files.paths(recording)
        target = read_span(target_path, self.rate, first, frames)
        record: dict[str, Any] = {
            "group": self.group(i),
            "name": self.files.names[recording],
            "start_seconds": first / self.rate,
            "correlation": round(report.delay.correlation, 3),
        }
        if self.align:
            late = correction(report.delay)
            begin = max(0, first + math.floor(late) - _MARGIN)
            source = read_span(source_path, self.rate, begin, frames + 2 * _MARGIN + 1)
            source = align.advance(source, first + late - begin)[:frames] * report.delay.polarity
            record |= {"delay_samples": late, "polarity": report.delay.polarity}
        else:
            source = read_span(source_path, self.rate, first, frames)
        if (len(source), len(target)) != (frames, frames):
            raise DataError(f"{self.files.names[recording]} is shorter than when it was checked")
        write = audio_codec.write_wav if self.payload == "wav" else audio_codec.write_flac
        return {
            "__key__": self.keys[i],
            f"{INPUT}.{self.payload}": write(audio_codec.to_int16(source), self.rate),
            f"{TARGET}.{self.payload}": write(audio_codec.to_int16(target), self.rate),
            "json": json.dumps(record).encode(),
        }
