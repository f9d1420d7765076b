"""`distgan check DATA`: are the files those that were written, and is what is in them fit to train
on?

    DATA/audit/audit.json    every finding with split, shard, key, value and threshold; what was
                             measured; fingerprint, versions
    DATA/audit/*.png         the data and the findings as pictures

Nothing in DATA is changed, and the audit is not part of the data: neither readers nor the
fingerprint see it.
"""

import argparse
import json
import os
import platform
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from distgan import __version__
from distgan.core import console
from distgan.core.errors import ConfigError, DataError
from distgan.core.files import write_atomic
from distgan.core.worker_pool import default_workers, ordered_map
from distgan.shards.audit import images, integrity, pairs
from distgan.shards.audit.findings import FAIL, SIGNED, WARN, Checks, Finding, summary
from distgan.shards.audit.samples import chunks, places, read
from distgan.shards.format.manifest import DATASET
from distgan.shards.sources._base import load_source, source_names

VERSION = 1
FILE = "audit.json"
PICTURES = (
    "images.png",
    "statistics.png",
    "flagged.png",
    "duplicates.png",
    "worst.png",
    "typical.png",
)


def main(argv: list[str]) -> int:
    """`distgan check`: 0 if nothing FAILs (with --strict: nothing WARNs either), else 1;
    ConfigError and DataError for what cannot be checked.
    """
    args = _parser().parse_args(argv)
    root, checks = Path(args.data), Checks(args.threshold)
    for option in ("workers", "limit"):
        if (number := getattr(args, option)) is not None and number < 1:
            raise ConfigError(f"--{option} {number}: at least 1")
    if not root.is_dir():
        raise ConfigError(
            f"{root}: no such folder; make it with `distgan shard SOURCE {shlex.quote(str(root))}`"
        )
    out = Path(args.out) if args.out else root / "audit"
    _refuse_unwritable(out, root)
    files = integrity.examine(root, checks, args.workers)
    quality = _Quality(files, checks, args.limit, args.workers)
    findings = files.findings + quality.findings
    if quality.kind == "none" and files.dataset.get("sample"):
        findings.append(
            Finding(
                "unseen",
                WARN,
                "",
                DATASET,
                "",
                None,
                None,
                "",
                "no kind and size of one sample is stated there",
            )
        )
    failed = any(finding.level == FAIL for finding in findings) or (args.strict and bool(findings))
    rows = [
        summary(
            check,
            findings,
            _total(check.of, files, quality),
            check.name not in quality.ungraded,
            quality.measured(check.name),
        )
        for check in checks.of("files", "members", quality.kind)
    ]
    report = {
        "version": VERSION,
        "fingerprint": files.dataset.get("fingerprint"),
        "source": files.dataset.get("source"),
        "sample": files.dataset.get("sample"),
        "verdict": "fail" if failed else "pass",
        "strict": args.strict,
        "examined": {
            "shards": len(files.shards),
            "members": sum(shard.members for shard in files.shards),
            "bytes": sum(shard.bytes for shard in files.shards),
            "kind": quality.kind,
            "samples": len(quality.reports),
            "of": quality.whole,
        },
        "not_graded": list(quality.ungraded),
        "checks": rows,
        "findings": [asdict(finding) for finding in findings],
        "versions": {
            "distgan": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }
    try:
        drawn = _write(out, report, quality)
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: {error.strerror}; choose another folder: distgan check"
            f" {root} --out FOLDER"
        ) from error
    _say(root, out, report, quality, drawn)
    return 1 if failed else 0


class _Quality:
    """The reports at the samples that integrity found whole, and the findings about them.

    None where the kind of sample is not known.
    """

    def __init__(self, files: integrity.Integrity, checks: Checks, limit: int | None, workers: int):
        self.kind, self.whole = (
            _kind(files.dataset.get("sample")),
            sum(len(set(shard.keys) - shard.damaged) for shard in files.shards),
        )
        self.checks, self.reports, self.findings = checks, [], []
        self.ungraded = pairs.not_graded(files.dataset) if self.kind == "pairs" else ()
        chosen = places(files.shards, limit)
        if self.kind == "none" or not chosen:
            return
        fields = list(read(chosen[0]))
        self.examiner = (
            images.Examiner(files.dataset["sample"], fields)
            if self.kind == "images"
            else pairs.Examiner(files.dataset, fields)
        )
        with console.bar(f"looking at {self.kind}", len(chosen), self.kind) as bar:
            for reports in ordered_map(self.examiner, chunks(chosen), workers):
                self.reports += reports
                bar.advance(len(reports))
        self.findings = (
            images.findings(self.reports, checks)
            if self.kind == "images"
            else pairs.findings(self.reports, checks, self.ungraded)
        )

    def measured(self, name: str) -> list[float]:
        """The values of one check, of all samples."""
        name = "si-sdr" if name.startswith("si-sdr") else name
        values = [report.values[name] for report in self.reports if name in report.values]
        return [abs(value) for value in values] if name in SIGNED else values

    def draw(self, out: Path) -> list[str]:
        from distgan.shards.audit import (
            plots,  # matplotlib takes a second, which the worker processes need not spend
        )

        if not self.reports:
            return []
        draw = plots.draw_images if self.kind == "images" else plots.draw_pairs
        return draw(out, self.reports, self.examiner, self.findings, self.checks, self.ungraded)


def _kind(sample: Any) -> str:
    """What dataset.json says that a sample is: "images", "pairs", or "none" that is looked into."""
    if isinstance(sample, dict):
        if (
            sample.get("kind") == "image"
            and isinstance(sample.get("size"), int)
            and sample.get("channels") in (1, 3)
        ):
            return "images"
        if sample.get("kind") == "pair" and isinstance(sample.get("rate"), int):
            return "pairs"
    return "none"


def _total(of: str, files: integrity.Integrity, quality: _Quality) -> int:
    if of == "files":
        return files.files
    return sum(shard.members for shard in files.shards) if of == "members" else len(quality.reports)


def _refuse_unwritable(out: Path, root: Path) -> None:
    """Before minutes are spent."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{out} cannot be written; choose another folder: distgan check {root} --out FOLDER"
        )


def _write(out: Path, report: dict[str, Any], quality: _Quality) -> list[str]:
    """The report, and the pictures in place of those of an earlier one.

    A finding that is gone must not leave its picture.
    """
    out.mkdir(parents=True, exist_ok=True)
    if (out / FILE).is_file():
        for picture in PICTURES:
            (out / picture).unlink(missing_ok=True)
    write_atomic(out / FILE, json.dumps(report, indent=1, allow_nan=False) + "\n")
    return quality.draw(out)


def _say(
    root: Path, out: Path, report: dict[str, Any], quality: _Quality, drawn: list[str]
) -> None:
    """The table, what it rests on, where the rest is, and what to do next."""
    examined, rows = report["examined"], report["checks"]
    lines = [
        _COLUMNS.format(
            "", "check", "findings", "share", "median", "worst", "limits", "such as"
        ).rstrip()
    ]
    lines += [_row(row) for row in rows if row["of"] == quality.kind or row["level"] != "ok"]
    console.say("\n".join(lines))
    if all(row["level"] == "ok" for row in rows if row["of"] in ("files", "members")):
        console.say(
            f"integrity ok: {examined['shards']} shards, {examined['members']} members,"
            f" {examined['bytes'] / 1e6:.1f} MB are as they were written (sha256, crc32, tar"
            " headers, index, manifest, SHA256SUMS)"
        )
    if examined["samples"] < examined["of"]:
        console.say(
            f"looked at {examined['samples']} of {examined['of']} {quality.kind}, drawn at random"
            " (--limit)"
        )
    if quality.ungraded:
        console.say(
            "info: reported, not graded, because this is not sound: input and target of a detector"
            " are shaped, shifted and offset on purpose"
        )
    fails, warns = (sum(row[level] for row in rows) for level in ("fails", "warns"))
    console.say(
        f"{root}: {report['verdict']}; {fails} FAIL, {warns} WARN, every one in {out / FILE}"
        + (f"; pictures beside it: {', '.join(drawn)}" if drawn else "")
    )
    console.say(f"next: {_next(root, report, rows)}")


_COLUMNS = "{:4}  {:14}  {:>8}  {:>7}  {:>9}  {:>9}  {:24}  {}"


def _row(row: dict[str, Any]) -> str:
    worst, spread = row["worst"], row["measured"]
    value = worst["value"] if worst else spread["min" if row["low"] else "max"] if spread else None
    level = "-" if row["level"] == "none" else row["level"]
    limits = " / ".join(
        "-" if limit is None else f"{'<' if row['low'] else '>'} {limit:g}"
        for limit in (row["warn"], row["fail"])
    )
    if row["unit"] == "":
        limits, spread = "any", None
    example = (
        "/".join(filter(None, (worst["split"], worst["key"] or worst["shard"]))) if worst else ""
    )
    detail = ": ".join(filter(None, (example, worst["detail"]))) if worst else ""
    found = row["fails"] + row["warns"]
    return _COLUMNS.format(
        level,
        row["check"],
        found,
        f"{row['share']:.1%}" if found else "",
        f"{spread['median']:.3g}" if spread else "",
        f"{value:.3g}" if value is not None and row["unit"] else "",
        f"{limits} {row['unit']}".strip(),
        detail,
    ).rstrip()


def _next(root: Path, report: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    name, kind, adopted = report["source"], report["examined"]["kind"], report["source"] == "index"
    if any(row["level"] == FAIL for row in rows if row["of"] in ("files", "members")):
        if adopted:
            return f"restore what is named above, or replace it; then: distgan index {root}"
        return (
            f"restore what is named above; or run the `distgan shard` line of {root} again, which"
            " keeps whole shards and writes the others"
        )
    if report["verdict"] == "fail" and adopted:
        return (
            "repair or leave out what is named above, write those tars again, and index them:"
            f" distgan index {root}"
        )
    if kind == "none" and adopted:
        return f"distgan index {root}, which says how to go on"
    if report["verdict"] == "fail":
        return (
            "repair or leave out what is named above at its source, and shard it again"
            " (--drop-low-quality leaves out what a source itself finds)"
        )
    recipe = (
        load_source(name).RECIPE
        if name in source_names()
        else {"images": "sagan", "pairs": "timbre"}.get(kind)
    )
    return (
        f"distgan run --processes 2 {recipe} {shlex.quote(f'data={root}')}"
        if recipe
        else (
            "a recipe of your own (docs/architecture.md, Adding a system); no recipe of this"
            f" version trains on {kind}"
        )
    )


def _parser() -> argparse.ArgumentParser:
    rows = []
    for title, kinds in (
        ("files", ("files", "members")),
        ("images", ("images",)),
        ("pairs of recordings", ("pairs",)),
    ):
        rows += [
            "",
            f"{title}:",
            "  check           WARN     FAIL     unit        meaning (source)",
        ]
        for check in Checks().of(*kinds):
            warn, fail = (
                (
                    "-"
                    if limit is None
                    else "any"
                    if not check.unit
                    else f"{'<' if check.low else '>'} {limit:g}"
                )
                for limit in (check.warn, check.fail)
            )
            source = f" ({check.source})" if check.source else ""
            rows.append(
                f"  {check.name:14}  {warn:8} {fail:8} {check.unit:11} {check.meaning}{source}"
            )
    parser = argparse.ArgumentParser(
        "distgan check",
        description="Are shards as they were written, and is what is in them fit to train on?",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            [
                "example: distgan check data/photos --threshold contrast=3,1",
                "",
                (
                    "exit code: 0 nothing to object to, 1 at least one FAIL (with --strict: or"
                    " WARN), 2 the check itself was not possible"
                ),
                *rows,
                "",
                (
                    "Thresholds for sound are not applied to other waveforms (source waveform, or a"
                    " rate outside 4 kHz to 1 MHz); there the values are reported."
                ),
            ]
        ),
    )
    parser.add_argument(
        "data", metavar="DATA", help="folder made by `distgan shard`, or adopted by `distgan index`"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="where the report goes (default: DATA/audit)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=default_workers(),
        metavar="N",
        help="processes (default here: %(default)s)",
    )
    parser.add_argument("--strict", action="store_true", help="exit code 1 for a WARN too")
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help=(
            "look into at most N samples of each split, drawn at random; files are always "
            "examined whole"
        ),
    )
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="NAME=WARN,FAIL",
        help="another threshold, such as delay=1,4; '-' for never",
    )
    return parser
