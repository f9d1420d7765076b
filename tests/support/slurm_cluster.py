"""The development cluster, as the tests of tests/slurm use it."""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from processes import ROOT, TINY, final

from distgan import cli
from distgan.core.errors import DistganError

CLUSTER = [sys.executable, str(ROOT / "slurm/dev-cluster")]
FOLDER = Path(
    os.environ.get("DISTGAN_DEV_CLUSTER")
    or Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    / "distgan-dev-cluster"
)
PROGRAMS = ROOT / "tests/programs/slurm_programs.py"
QUIET = [
    "evaluate.schedule=[[null,1000]]",
    "validate_every=1000",
    "sample_every=1000",
    "machine.checkpoint_every=1000",
    *TINY,
]


def distgan(*words, code=0) -> str:
    """A verb, in this process; its output."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        module, _, function = cli.VERBS[words[0]][0].partition(":")
        imported = __import__(module, fromlist=["main"])
        try:
            found = getattr(imported, function or "main")([*map(str, words[1:])])
        except DistganError as error:
            print(f"error: {error}")
            found = 2
    assert code is None or found == code, out.getvalue()
    return out.getvalue()


def states(*targets) -> list[dict]:
    return [
        json.loads(text) for text in distgan("status", "--json", *targets, code=None).splitlines()
    ]


def until(condition, seconds=150, every=0.5):
    ends = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < ends, subprocess.run(
            ["squeue"], capture_output=True, text=True
        ).stdout + "\n".join(map(str, states()))
        time.sleep(every)


def all_done(name, seconds=200, leave=30):
    until(lambda: [one["state"] for one in states(name)] == ["done"] * len(states(name)), seconds)
    until(
        lambda: (
            not subprocess.run(
                ["squeue", "--noheader", "--me"], capture_output=True, text=True
            ).stdout.strip()
        ),
        leave,
    )  # and their jobs have left


def starts(folder) -> int:
    path = Path(folder) / "starts.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def turns(folder) -> list[dict]:
    return [
        json.loads(path.read_text()) for path in sorted(Path(folder).glob("attempts/*/job.json"))
    ]


def steps(folder) -> int:
    path = Path(folder) / "journal.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def preempt(node) -> str:
    """Another job takes the node for a second."""
    found = subprocess.run(
        [
            "sbatch",
            "--parsable",
            "--partition=urgent",
            f"--nodelist={node}",
            "--exclusive",
            "--output=/dev/null",
            "--wrap=sleep 1",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


def dry(seconds=1.0):
    return [
        "--profile",
        "dev",
        "--set",
        f'program=["{PROGRAMS}", "dry"]',
        "--set",
        f"setup=[export DRY_SECONDS={seconds}]",
    ]


def equal(a, b):
    mine, theirs = final(Path(a)), final(Path(b))
    return mine.keys() == theirs.keys() and all(
        torch.equal(mine[name], theirs[name]) for name in mine
    )
