"""Start the trainer as users do: real processes, gloo on the CPU."""

import functools
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import fork_server
import torch
from safetensors.torch import load_file

from distgan.runs import checkpoints

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "distgan" / "train.py"
BIN = Path(sys.executable).parent
# Small networks; float64, in which the only difference between two ways of starting a run is
# rounding of 1e-16.
TINY = [
    "ngf=4",
    "ndf=4",
    "latent=8",
    "batch=12",
    "evaluate.samples=24",
    "evaluate.extractor=standin",
]
STEPS = 20
FEW = 8  # where a step does all that there is to prove, and more would repeat it
TOLERANCE = 1e-4  # the promise; what is measured in float64 lies ten orders below
ROUNDING = 1e-9  # any fault of sharing, seeding or averaging lies above, rounding below

# What a process of a run imports, and none of it ours.
PACKAGES = [
    "torch",
    "torch._dynamo",
    "torch.nn.parallel",
    "torch.distributed.run",
    "accelerate.commands.accelerate_cli",
    "accelerate",
    "yaml",
    "pydantic",
    "rich.console",
    "rich.progress",
    "PIL.Image",
    "safetensors.torch",
    "isal.isal_zlib",
]


def line(way: str, processes: int = 1, program: Path = TRAIN) -> list[str]:
    """The command of one way to start a run."""
    return {
        "python": [sys.executable, str(program)],
        "distgan": [str(BIN / "distgan"), "train"],
        "torchrun": [
            str(BIN / "torchrun"),
            "--standalone",
            "--nproc-per-node",
            str(processes),
            str(program),
        ],
        "accelerate": [
            str(BIN / "accelerate"),
            "launch",
            "--multi_gpu",
            "--num_machines",
            "1",
            "--mixed_precision",
            "no",
            "--dynamo_backend",
            "no",
            "--main_process_port",
            "0",
            "--num_processes",
            str(processes),
            str(program),
        ],
    }[way]


def environment(**more: str) -> dict[str, str]:
    """This environment without what a surrounding launcher may have left, one thread per
    process.
    """
    clean = {
        k: v
        for k, v in os.environ.items()
        if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    }
    return clean | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT),
        **more,
    }


def start(command: list[str], *arguments: str, cwd: Path, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*command, *arguments],
        cwd=cwd,
        env=environment(**env),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def run(
    command: list[str],
    *arguments: str,
    cwd: Path,
    code: int | None = 0,
    cold: bool | None = None,
    **env: str,
) -> str:
    """Run to the end; the output, stderr included. Fails the test on another exit code. Processes
    are forked (tests/support/fork_server.py) unless `cold`, or something is put into the
    environment, which may be read when a package is imported.
    """
    if not (bool(env) if cold is None else cold) and fork_server.can([*command, *arguments]):
        ended, output = _nursery(any("deepspeed" in word for word in arguments)).run(
            [*command, *arguments], cwd, environment(**env), timeout=240
        )
    else:
        process = start(command, *arguments, cwd=cwd, **env)
        output, _ = process.communicate(timeout=240)
        ended = process.returncode
    assert code is None or ended == code, output[-4000:]
    return output


@functools.cache
def _nursery(deepspeed: bool) -> fork_server.Nursery:
    more = {"DS_ACCELERATOR": "cpu"} if deepspeed else {}
    return fork_server.Nursery(
        environment(**more), *PACKAGES, *(["deepspeed"] if deepspeed else [])
    )


def journal(folder: Path) -> dict[int, dict]:
    """Training rows by step; fails on a step that stands twice."""
    rows = [json.loads(text) for text in (folder / "journal.jsonl").read_text().splitlines()]
    training = [row for row in rows if "d/loss" in row]
    for key in ("d/loss", "valid/d_loss", "eval/frechet_standin"):
        steps = [row["step"] for row in rows if key in row]
        assert len(set(steps)) == len(steps), f"{key} stands twice for a step"
    return {row["step"]: row for row in training}


def final(folder: Path) -> dict[str, torch.Tensor]:
    """Weights, buffers and averages of the newest checkpoint."""
    return load_file(checkpoints.present(folder / "checkpoints")[-1] / "networks.safetensors")


def ends_differ_by(a: Path, b: Path) -> float:
    """The largest difference of two runs' final networks, and of all validations and scores
    (relative): both must have the same.
    """
    x, y = final(a), final(b)
    assert x.keys() == y.keys()
    found = max(float((x[name].double() - y[name].double()).abs().max()) for name in x)
    checks = [
        [
            (row["step"], key, value)
            for row in map(json.loads, (folder / "journal.jsonl").read_text().splitlines())
            for key, value in row.items()
            if key.startswith(("valid/", "eval/"))
        ]
        for folder in (a, b)
    ]
    assert [row[:2] for row in checks[0]] == [row[:2] for row in checks[1]]
    return max(
        [found, *(abs(p[2] - q[2]) / max(abs(p[2]), 1e-3) for p, q in zip(*checks, strict=True))]
    )


def largest_difference(a: Path, b: Path, steps: int) -> float:
    """The largest relative difference of any loss in the first `steps` steps of two run folders,
    which both must have.
    """
    names, a, b = ("d/loss", "g/loss"), journal(a), journal(b)
    return max(abs(a[s][n] - b[s][n]) / abs(a[s][n]) for s in range(1, steps + 1) for n in names)


def broken(where: Path, fault: str) -> Path:
    """The trainer with a fault put in."""
    program = where / "broken.py"
    program.write_text(
        textwrap.dedent(fault)
        + "\nimport sys\nfrom distgan.cli import guarded\nfrom distgan.distributed.ranks import"
        " exit_process\nfrom distgan.train import main\nif __name__ == '__main__':\n   "
        " exit_process(guarded(main, sys.argv[1:]))\n"
    )
    return program


def events(folder: Path, name: str) -> list[dict]:
    return [
        event
        for event in map(json.loads, (folder / "events.jsonl").read_text().splitlines())
        if event["event"] == name
    ]
