"""`distgan check DATA`: verify the files of a data set, and the quality of its samples.

    DATA/audit/audit.json    every finding with split, shard, key, value and threshold; the measured
                             values; fingerprint, versions
    DATA/audit/*.png         the data and the findings as pictures

The data are not changed, and the audit is not part of them: neither readers nor the fingerprint
include it.
"""

import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from distgan import __version__
from distgan.config import image_sizes
from distgan.config.data_name import folder_of_shards
from distgan.core import console
from distgan.core.arguments import Arguments, Command, Option, switch, whole
from distgan.core.errors import ConfigError, DataError
from distgan.core.files import make_folder, remove, write_atomic
from distgan.core.worker_pool import default_workers, ordered_map
from distgan.shards.audit import images, integrity, pairs, vectors
from distgan.shards.audit.checks import FAIL, SIGNED, WARN
from distgan.shards.audit.findings import Checks, Finding, limit_words, print_table, summary
from distgan.shards.audit.labels import LabelCounts
from distgan.shards.audit.shard_integrity import Place, chunks, places, read
from distgan.shards.format.manifest import DATASET
from distgan.shards.format.sample_spec import UNITS, next_lines
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
    """Run `distgan check`; return 1 if a check FAILs (with --strict: or WARNs), else 0.

    ConfigError and DataError if the check itself is not possible.
    """
    args = COMMAND.parse(argv)
    root, checks = folder_of_shards(args.words[0]), Checks(args.threshold)
    if not root.is_dir():
        raise ConfigError(
            f"{root}: no such folder; make it with `{console.command('shard', 'SOURCE', root)}`"
        )
    out = Path(args.out) if args.out else root / "audit"
    _require_writable(out, root)
    files = integrity.examine(root, checks, args.workers)
    labels = LabelCounts(files, checks, args.workers)
    quality = _Quality(files, checks, args.limit, args.workers, labels.differ)
    report = _report(files, quality, labels, checks, args.strict)
    try:
        pictures = _write(out, report, quality)
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: {error.strerror}; choose another folder: distgan check"
            f" {root} --out FOLDER"
        ) from error
    _print(root, out, report, quality, labels, pictures)
    return 1 if report["verdict"] == "fail" else 0


def _report(
    files: integrity.Integrity,
    quality: "_Quality",
    labels: LabelCounts,
    checks: Checks,
    strict: bool,
) -> dict[str, Any]:
    """Return the contents of audit.json."""
    findings = files.findings + labels.findings + quality.findings
    if quality.kind == "none" and files.dataset.get("sample"):
        detail = "it states no kind and size of a sample"
        findings.append(Finding("unseen", WARN, "", DATASET, "", None, None, "", detail))
    failed = any(finding.level == FAIL for finding in findings) or (strict and bool(findings))
    members = sum(shard.members for shard in files.shards)
    totals = {"files": files.files, "members": members}
    totals |= dict.fromkeys(quality.units, len(quality.reports)) | labels.totals
    columns = quality.columns.record() if quality.columns else {}
    totals |= {"columns": len(columns)}
    rows = [
        summary(
            check,
            findings,
            totals[check.of],
            check.name not in quality.ungraded,
            labels.measured(check.name) or quality.measured(check.name),
        )
        for check in checks.of("files", "members", *labels.units, *quality.units)
    ]
    return {
        "version": VERSION,
        "fingerprint": files.dataset.get("fingerprint"),
        "source": files.dataset.get("source"),
        "sample": files.dataset.get("sample"),
        "verdict": "fail" if failed else "pass",
        "strict": strict,
        "examined": {
            "shards": len(files.shards),
            "members": members,
            "bytes": sum(shard.bytes for shard in files.shards),
            "kind": quality.kind,
            "samples": len(quality.reports),
            "of": quality.total,
        },
        "not_graded": list(quality.ungraded),
        **({"labels": labels.counts} if labels.counts else {}),
        **({"columns": columns} if columns else {}),
        "checks": rows,
        "findings": [asdict(finding) for finding in findings],
        "versions": {
            "distgan": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }


# The units of the checks that apply to a kind, where it is not one.
_BESIDE = {"image pairs": ("images", "image pairs"), "vectors": ("vectors", "columns")}


class _Quality:
    """The measured values of all undamaged samples, and the findings about them.

    Empty if the kind of sample is not known.
    """

    def __init__(
        self,
        files: integrity.Integrity,
        checks: Checks,
        limit: int | None,
        workers: int,
        differ: Callable[[Place, Place], str],
    ):
        self.kind = _kind(files.dataset.get("sample"))
        # The units of the checks that apply.
        self.units = _BESIDE.get(self.kind, (self.kind,))
        self.total = sum(len(set(shard.keys) - shard.damaged) for shard in files.shards)
        self.checks = checks
        self.reports: list[Any] = []
        self.findings: list[Finding] = []
        self.columns: vectors.Columns | None = None
        self.ungraded = pairs.not_graded(files.dataset) if self.kind == "pairs" else ()
        chosen = places(files.shards, limit)
        if self.kind == "none" or not chosen:
            return
        fields = list(read(chosen[0]))
        module = {"pairs": pairs, "vectors": vectors}.get(self.kind, images)
        about = files.dataset if self.kind == "pairs" else files.dataset["sample"]
        self.examiner = module.Examiner(about, fields)
        with console.bar(f"examining {self.kind}", len(chosen), self.kind) as bar:
            for reports in ordered_map(self.examiner, chunks(chosen), workers):
                self.reports += reports
                bar.advance(len(reports))
        if "images" in self.units:
            self.findings = images.findings(self.reports, checks, differ)
        elif self.kind == "vectors":
            self.columns = vectors.Columns(self.examiner.columns, self.reports)
            self.findings = vectors.findings(self.reports, checks, differ)
            self.findings += self.columns.findings(checks)
        else:
            self.findings = pairs.findings(self.reports, checks, self.ungraded)

    def measured(self, name: str) -> list[float]:
        """Return the values of one check for all samples, as magnitudes if it is signed."""
        name = "si-sdr" if name.startswith("si-sdr") else name
        values = [report.values[name] for report in self.reports if name in report.values]
        return [abs(value) for value in values] if name in SIGNED else values

    def draw(self, out: Path) -> list[str]:
        """Write the pictures; return their names."""
        if not self.reports:
            return []
        # here, because matplotlib takes a second that the worker processes need not spend
        from distgan.shards.audit import pair_plots, plots

        data = (out, self.reports, self.examiner, self.findings, self.checks)
        if "images" in self.units:
            return plots.draw_images(*data)
        if self.columns:
            return plots.draw_columns(out, self.columns.names, self.columns.table)
        return pair_plots.draw_pairs(*data, self.ungraded)


def _kind(sample: Any) -> str:
    """Return the word for several samples by dataset.json; "none" if they cannot be examined."""
    if not isinstance(sample, dict) or sample.get("size", 1) is None:
        return "none"
    return UNITS.get(str(sample.get("kind")), "none")


def _require_writable(out: Path, root: Path) -> None:
    """Raise ConfigError if `out` cannot be written, before minutes are spent."""
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{out} cannot be written; choose another folder:"
            f" {console.command('check', root, '--out', 'FOLDER')}"
        )


def _write(out: Path, report: dict[str, Any], quality: _Quality) -> list[str]:
    """Write report and pictures; delete the pictures of an earlier report."""
    make_folder(out)
    if (out / FILE).is_file():
        for picture in PICTURES:
            remove(out / picture)
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    write_atomic(out / FILE, text, nullcontext)
    return quality.draw(out)


def _print(
    root: Path,
    out: Path,
    report: dict[str, Any],
    quality: _Quality,
    labels: LabelCounts,
    pictures: list[str],
) -> None:
    """Print the table, the extent of the audit, the place of the report, and the next command."""
    examined, rows = report["examined"], report["checks"]
    shown = (*quality.units, *labels.units)
    print_table([row for row in rows if row["of"] in shown or row["level"] != "ok"])
    labels.print_tables()
    if quality.columns:
        quality.columns.print_table()
    if all(row["level"] == "ok" for row in rows if row["of"] in ("files", "members")):
        console.say(
            f"integrity ok: {examined['shards']} shards, {examined['members']} members,"
            f" {examined['bytes'] / 1e6:.1f} MB are as they were written (sha256, crc32, tar"
            " headers, index, manifest, SHA256SUMS)"
        )
    if examined["samples"] < examined["of"]:
        console.say(
            f"examined {examined['samples']} of {examined['of']} {quality.kind}, drawn at random"
            " (--limit)"
        )
    if quality.ungraded:
        console.say(
            "info: reported, not graded, because this is not sound: input and target of a detector"
            " are shaped, shifted and offset on purpose"
        )
    fails, warns = (sum(row[level] for row in rows) for level in ("fails", "warns"))
    beside = f"; pictures beside it: {', '.join(pictures)}" if pictures else ""
    console.say(
        f"{root}: {report['verdict']}; {fails} FAIL, {warns} WARN, all listed in"
        f" {out / FILE}{beside}"
    )
    for line in _next(root, report, rows, list(labels.counts)):
        console.say(f"next: {line}")


def _next(
    root: Path, report: dict[str, Any], rows: list[dict[str, Any]], labels: list[str]
) -> list[str]:
    """Return the next commands, or the remedy; `labels` are the columns of the data set."""
    _, *lines = next_lines(root, report["sample"] or {}, _usual(report), labels)
    return [_remedy(root, report, rows)] if report["verdict"] == "fail" or not lines else lines


def _usual(report: dict[str, Any]) -> str | None:
    """Return the recipe to name as the next command."""
    if report["source"] in source_names():
        return load_source(report["source"]).RECIPE
    return {"images": "sagan", "pairs": "timbre"}.get(report["examined"]["kind"])


def _remedy(root: Path, report: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the remedy for what failed, or for what no recipe trains on."""
    kind, adopted = report["examined"]["kind"], report["source"] == "index"
    index = console.command("index", root)
    if any(row["level"] == FAIL for row in rows if row["of"] in ("files", "members")):
        if adopted:
            return f"restore or replace the files named above; then: {index}"
        return (
            f"restore the files named above, or run the `distgan shard` command of {root} again,"
            " which keeps whole shards and writes the others"
        )
    if report["verdict"] == "fail" and adopted:
        return (
            "repair or leave out the samples named above, write those tars again, and index them:"
            f" {index}"
        )
    if kind == "none" and adopted:
        return f"{index}, which prints how to continue"
    if report["verdict"] == "fail":
        return (
            "repair or leave out the samples named above at their source, and shard it again"
            " (--drop-low-quality leaves out those that a source itself reports)"
        )
    if _usual(report) and kind == "images":
        return f"make images of a size that recipes train on: {image_sizes.RULE}"
    return (
        "a recipe of your own (docs/architecture.md, Adding a system); no recipe of this version"
        f" trains on {kind}"
    )


def _check_lines() -> list[str]:
    """Return the lines of --help that list all checks."""
    rows: list[str] = []
    for title, kinds in (
        ("files", ("files", "members")),
        ("labels", ("labels", "classes")),
        ("images", ("images",)),
        ("pairs of images, beside those of images", ("image pairs",)),
        ("vectors", ("vectors", "columns")),
        ("pairs of recordings", ("pairs",)),
    ):
        rows += [
            "",
            f"{title}:",
            "  check           WARN     FAIL     unit        meaning (source)",
        ]
        for check in Checks().of(*kinds):
            warn, fail = (
                "any" if limit is not None and not check.unit else limit_words(limit, check.low)
                for limit in (check.warn, check.fail)
            )
            source = f" ({check.source})" if check.source else ""
            rows.append(
                f"  {check.name:14}  {warn:8} {fail:8} {check.unit:11} {check.meaning}{source}"
            )
    return rows


def _epilog(words: list[str]) -> str:
    """Return an example, exit codes and every check with its thresholds."""
    return "\n".join(
        [
            "example: distgan check data/photos --threshold contrast=3,1",
            "",
            "exit code: 0 nothing to object to, 1 at least one FAIL (with --strict: or WARN), 2 the"
            " check itself was not possible",
            *_check_lines(),
            "",
            "Thresholds for sound are not applied to other waveforms (source waveform, or a rate"
            " outside 4 kHz to 1 MHz); there the values are reported.",
        ]
    )


def _thresholds(args: Arguments) -> Iterator[str]:
    try:
        Checks(args.threshold)
    except ConfigError as error:
        yield str(error)


COMMAND = Command(
    "check",
    "Are shards as they were written, and is what is in them fit to train on?",
    (
        Option("out", "where the report goes (default: DATA/audit)", "FOLDER"),
        whole("workers", "processes", 1, default=default_workers()),
        switch("strict", "exit code 1 for a WARN too"),
        whole(
            "limit",
            "look into at most N samples of each split, drawn at random; files are always examined"
            " whole",
            1,
        ),
        Option(
            "threshold",
            "another threshold, such as delay=1,4; '-' for never",
            "NAME=WARN,FAIL",
            repeat=True,
        ),
    ),
    ("DATA", "folder made by `distgan shard`, or adopted by `distgan index`"),
    least=1,
    most=1,
    check=_thresholds,
    epilog=_epilog,
)
