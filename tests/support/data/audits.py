"""Write a data set as `distgan shard` leaves it, check it, and read what was found."""

import json
from pathlib import Path

from distgan.cli import guarded
from distgan.core.files import write_atomic
from distgan.shards.audit import command as audit_command
from distgan.shards.format.manifest import fingerprint, write_manifest
from distgan.shards.format.writer import write_shard


def write_set(
    root: Path,
    train: list[dict],
    validation: list[dict],
    kind: dict,
    per_shard: int = 10,
    **dataset,
) -> Path:
    """A data set as `distgan shard` leaves it."""
    prints = []
    for split, samples in (("train", train), ("validation", validation)):
        (root / split).mkdir(parents=True)
        for k in range(0, len(samples), per_shard):
            write_shard(
                root / split / f"{split}-{k // per_shard:06d}.tar", samples[k : k + per_shard]
            )
        prints.append(write_manifest(root / split, split)["fingerprint"])
    write_atomic(
        root / "dataset.json",
        json.dumps(
            {
                "version": 1,
                "source": "images",
                "options": {},
                "sample": kind,
                "complete": True,
                "samples": {"train": len(train), "validation": len(validation)},
                "fingerprint": fingerprint(prints),
                **dataset,
            }
        ).encode(),
    )
    return root


def check(root: Path, *options: str) -> tuple[int, dict]:
    """(exit code, audit.json)."""
    workers = [] if "--workers" in options else ["--workers", "1"]
    code = guarded(audit_command.main, [str(root), *workers, *options])
    return code, json.loads((root / "audit" / "audit.json").read_text())


def found(report: dict) -> list[tuple[str, str, str, str]]:
    return sorted((f["check"], f["level"], f["split"], f["key"]) for f in report["findings"])
