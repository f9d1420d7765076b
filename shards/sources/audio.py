"""Pairs of recordings in two folders, such as a dry and a processed one, whole or cut into
segments.

A file of the input folder belongs to the file of the target folder with the same name, extensions
aside. Channels are averaged, values written as 16-bit integers. Lengths may differ by 10 ms: both
are cut to the shorter. A pair whose sides do not correlate is no pair.

`--align` takes out the delay between the two, by robust cross-correlation for each pair, also a
fraction of a sample, and inverted polarity. Both members of a piece are the same stretch of the
recording; all pieces of a recording stay on one side of the split.

A sample is `key.input.wav`, `key.target.wav` (or .flac), and `key.json`: file, where the piece
begins, correlation, and the delay taken out.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distgan.core import console
from distgan.core.errors import ConfigError, DataError
from distgan.core.worker_pool import ordered_map
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
from distgan.shards.sources._base import SampleIssue, SourceReport

EXAMPLES = [
    (
        "recordings of equal names in takes/input and takes/target, in pieces of 2 s",
        "distgan shard audio OUT --from takes --segment 2",
    ),
    (
        "two folders, at 16 kHz, with the delay between them taken out",
        "distgan shard audio OUT --input amplified --target dry --rate 16000 --align",
    ),
]
RECIPE = "timbre"  # or waveform, with segment=N

RATES = (1000, 768_000)
SEGMENTS_S = (0.05, 3600)
LENGTH_TOLERANCE_S = 0.010
MAX_DELAY_S = 0.125
HEARD_S = 60.0  # of a recording, to find its delay
DELAY_SAMPLES, DRIFT_SAMPLES = 0.5, 1.0  # more is reported
CLIPPED_SHARE = 1e-4
_MARGIN = 1024  # frames around a piece whose delay is no whole number of samples


@dataclass(frozen=True)
class PairReport:
    """What a pair of recordings is like.

    `error` if no pair, `quality_issue` if of low quality; frames [begin, end) of the target that can be
    used.
    """

    error: str = ""
    quality_issue: str = ""
    begin: int = 0
    end: int = 0
    uneven: int = 0  # frames by which the lengths differ
    delay: align.Delay = align.UNKNOWN


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="folder", metavar="FOLDER", help=f"folder with {INPUT}/ and {TARGET}/ in it"
    )
    parser.add_argument(
        "--input", metavar="FOLDER", help="or: the recordings to start from, at any depth"
    )
    parser.add_argument(
        "--target", metavar="FOLDER", help="and what they are to become, under the same names"
    )
    parser.add_argument(
        "--rate",
        type=int,
        metavar="HZ",
        help="resample to it (default: the rate of the files, which must be one)",
    )
    parser.add_argument(
        "--segment",
        type=float,
        metavar="SECONDS",
        help=(
            "cut into pieces of this length; the last is kept if it has at least "
            "half of it (default: whole recordings)"
        ),
    )
    parser.add_argument(
        "--payload",
        choices=audio_codec.WAVE_FIELDS,
        default="wav",
        help="wav is read fastest, flac is smaller (default: %(default)s)",
    )
    parser.add_argument(
        "--align",
        action="store_true",
        help="take the delay between input and target out (it is reported without, too)",
    )


class Source:
    def __init__(self, args: argparse.Namespace):
        self._check_options(args)
        self.files = (
            FilePairs.in_one_folder(Path(args.folder))
            if args.folder
            else FilePairs(Path(args.input), Path(args.target))
        )
        rate = args.rate or self.files.one_rate()
        if rate is None:
            raise ConfigError(f"none of the {len(self.files.names)} pairs can be read as sound")
        self.rate, self.payload, self.align, self.segment = (
            rate,
            args.payload,
            args.align,
            args.segment,
        )
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
        self.pieces: list[
            tuple[int, int, int]
        ] = []  # (recording, first frame of the target, frames)
        self.reports: list[PairReport] = []

    @staticmethod
    def _check_options(args: argparse.Namespace) -> None:
        errors = []
        if bool(args.folder) == bool(args.input or args.target) or bool(args.input) != bool(
            args.target
        ):
            errors.append(
                "name the recordings by --from FOLDER, or by --input FOLDER and --target FOLDER"
            )
        if args.rate is not None and not RATES[0] <= args.rate <= RATES[1]:
            errors.append(f"--rate {args.rate}: from {RATES[0]} to {RATES[1]} Hz")
        if args.segment is not None and not SEGMENTS_S[0] <= args.segment <= SEGMENTS_S[1]:
            errors.append(
                f"--segment {args.segment:g}: from {SEGMENTS_S[0]:g} to {SEGMENTS_S[1]:g} seconds"
            )
        if errors:
            raise ConfigError("\n".join(errors))

    def check(self, workers: int) -> SourceReport:
        """Listen to every recording once, and cut those that are fit."""
        self.reports = []
        with console.bar("checking", len(self.files.names), "recordings") as bar:
            for report in ordered_map(self._inspect, range(len(self.files.names)), workers):
                self.reports.append(report)
                bar.advance()
        check = SourceReport(notes=list(self.files.notes))
        self.pieces, self.keys, short = [], [], []
        for i, report in enumerate(self.reports):
            pieces = [(0, 0)] if report.error else self._cut(report.begin, report.end)
            for number, piece in enumerate(pieces):
                if report.error or report.quality_issue:
                    check.issues.append(
                        SampleIssue(
                            len(self.pieces),
                            self.files.names[i],
                            report.error or report.quality_issue,
                            usable=not report.error,
                        )
                    )
                self.pieces.append((i, *piece))
                self.keys.append(
                    self.files.keys[i]
                    if self.segment is None
                    else f"{self.files.keys[i]}-{number:05d}"
                )
            if not pieces:
                short.append(self.files.names[i])
        if not self.pieces:
            raise ConfigError(f"--segment {self.segment:g}: no recording is half as long")
        if short:
            check.notes.append(
                f"{len(short)} recordings are shorter than half a segment, left out: {named(short)}"
            )
        self.sample = pair_sample(
            self.rate, self.payload, "int16", [frames for *_, frames in self.pieces if frames]
        )
        check.notes += self._notes()
        return check

    def _cut(self, begin: int, end: int) -> list[tuple[int, int]]:
        """(first frame, frames) of the pieces of a recording."""
        size = end - begin if self.segment is None else round(self.segment * self.rate)
        return [
            (at, min(size, end - at)) for at in range(begin, end, size) if 2 * (end - at) >= size
        ]

    def _notes(self) -> list[str]:
        fit = [
            (name, report)
            for name, report in zip(self.files.names, self.reports, strict=True)
            if not report.error
        ]
        uneven = [name for name, report in fit if report.uneven]
        moved = [
            abs(report.delay.samples) for _, report in fit if self.align and report.delay.samples
        ]
        notes = []
        if uneven:
            notes.append(
                f"{len(uneven)} pairs differ in length by up to"
                f" {max(report.uneven for _, report in fit)} frames, cut to the shorter:"
                f" {named(uneven)}"
            )
        if moved:
            notes.append(
                f"delay taken out of {len(moved)} pairs, up to {max(moved):.2f} samples; polarity"
                f" turned in {sum(report.delay.polarity < 0 for _, report in fit)}"
            )
        return notes

    def _inspect(self, i: int) -> PairReport:
        try:
            given, target = (audio_codec.load(path, self.rate)[0] for path in self.files.paths(i))
        except DataError as error:
            return PairReport(error=str(error))
        uneven = abs(len(given) - len(target))
        for name, x in ((INPUT, given), (TARGET, target)):
            if not np.isfinite(x).all():
                return PairReport(error=f"{name} has values that are not finite")
            if (peak := np.abs(x).max(initial=0)) < SILENT_PEAK:
                return PairReport(
                    error=(
                        f"{name} is silent: peak {20 * math.log10(max(peak, 1e-10)):.0f} dB of full"
                        " scale"
                    )
                )
        if uneven > LENGTH_TOLERANCE_S * self.rate:
            return PairReport(
                error=(
                    f"input has {len(given)} frames, target {len(target)}: more than"
                    f" {1e3 * LENGTH_TOLERANCE_S:g} ms apart"
                )
            )
        heard = round(HEARD_S * self.rate)
        delay = align.estimate(
            target[:heard],
            given[:heard],
            min(round(MAX_DELAY_S * self.rate), min(len(given), len(target)) // 2),
        )
        if delay.correlation < align.MISMATCH:
            return PairReport(
                error=(
                    "input and target are not the same recording: correlation"
                    f" {delay.correlation:.2f}, below {align.MISMATCH:g}"
                )
            )
        weak = []
        for name, x in ((INPUT, given), (TARGET, target)):
            if (share := clipped_share(x)) > CLIPPED_SHARE:
                weak.append(f"{name} is clipped: {share:.2%} of its samples")
            elif np.abs(x).max() > 1:
                weak.append(f"{name} goes up to {np.abs(x).max():.2f}, clipped at 1 in 16 bits")
        if abs(delay.drift) > DRIFT_SAMPLES:
            weak.append(f"delay drifts by {delay.drift:.1f} samples")
        if self.align:
            late = correction(delay)
            return PairReport(
                "",
                ", ".join(weak),
                max(0, math.ceil(-late)),
                min(len(target), math.floor(len(given) - late)),
                uneven,
                delay,
            )
        if abs(delay.samples) > DELAY_SAMPLES:
            weak.append(
                f"input is {'late' if delay.samples > 0 else 'early'} by {abs(delay.samples):.1f}"
                " samples; --align takes that out"
            )
        if delay.polarity < 0:
            weak.append("polarity is inverted; --align turns it")
        return PairReport("", ", ".join(weak), 0, min(len(given), len(target)), uneven, delay)

    def group(self, i: int) -> str:
        return self.files.groups[self.pieces[i][0]]

    def make(self, i: int) -> dict[str, Any]:
        recording, first, frames = self.pieces[i]
        report = self.reports[recording]
        given_path, target_path = self.files.paths(recording)
        target = read_span(target_path, self.rate, first, frames)
        about = {
            "group": self.group(i),
            "name": self.files.names[recording],
            "start_seconds": first / self.rate,
            "correlation": round(report.delay.correlation, 3),
        }
        if self.align:
            late = correction(report.delay)
            begin = max(0, first + math.floor(late) - _MARGIN)
            given = align.advance(
                read_span(given_path, self.rate, begin, frames + 2 * _MARGIN + 1),
                first + late - begin,
            )[:frames]
            given = given * report.delay.polarity
            about |= {"delay_samples": late, "polarity": report.delay.polarity}
        else:
            given = read_span(given_path, self.rate, first, frames)
        if (len(given), len(target)) != (frames, frames):
            raise DataError(f"{self.files.names[recording]} is shorter than when it was checked")
        write = audio_codec.write_wav if self.payload == "wav" else audio_codec.write_flac
        return {
            "__key__": self.keys[i],
            f"{INPUT}.{self.payload}": write(audio_codec.to_int16(given), self.rate),
            f"{TARGET}.{self.payload}": write(audio_codec.to_int16(target), self.rate),
            "json": json.dumps(about).encode(),
        }
