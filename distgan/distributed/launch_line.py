"""The `accelerate launch` line that starts any number of processes, with or without GPUs."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import distgan
from distgan.core.arguments import Arguments
from distgan.core.errors import LaunchError
from distgan.core.interrupts import STOP_SIGNALS

ACCELERATE = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
TRAIN = Path(distgan.__file__).with_name("train.py")


@dataclass(frozen=True)
class Nodes:
    """Several machines of one run, seen from one of them.

    How many, which is this, and where the first one waits for the others.
    """

    count: int
    rank: int
    address: str
    port: int


def command(
    processes: int,
    arguments: list[str],
    program: tuple[str, ...] = (str(TRAIN),),
    nodes: Nodes | None = None,
) -> list[str]:
    """Return the line that runs `program` (the trainer) with this many processes on this
    machine, or on each of `nodes`.

    `--multi_gpu` also where there is no GPU: `accelerate launch --cpu --num_processes 2` starts one
    process and says nothing (accelerate #2741), while this starts as many as asked for and the
    trainer then takes gloo on the CPU.
    """
    if processes == 1 and nodes is None:
        return [sys.executable, *program, *arguments]
    launch = [
        *ACCELERATE,
        "--multi_gpu",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    ]
    if nodes is None:
        where = [
            "--num_machines",
            "1",
            "--main_process_port",
            "0",
            "--num_processes",
            str(processes),
        ]
    # static: rank 0 is on the first node, where it validates and its logs are looked for; c10d
    # would sort the nodes
    else:
        where = [
            "--num_machines",
            str(nodes.count),
            "--machine_rank",
            str(nodes.rank),
            "--rdzv_backend",
            "static",
            "--main_process_ip",
            nodes.address,
            "--main_process_port",
            str(nodes.port),
            "--num_processes",
            str(processes * nodes.count),
        ]
    return [*launch, *where, *program, *arguments]


def environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the launcher's environment.

    torch's elastic agent passes on the signals that ask a run to save instead of dying by them, and
    leaves SIGHUP ignored where it is (nohup).
    """
    names = (*(number.name for number in STOP_SIGNALS), "SIGQUIT")
    return {"PET_SIGNALS_TO_HANDLE": ",".join(names), **base}


def spread(verb: str, arguments: Arguments) -> None:
    """Become the launcher of `distgan VERB …` in this many processes. Returns where that is done,
    or not wanted: it must then be this process's work.

    A verb calls it when its options are read and whatever can be checked quickly is: the launcher
    would print a traceback below each refusal.
    """
    from distgan.distributed.environment import process_count

    processes = arguments.processes
    source, count = process_count()
    if count == 1 and processes is not None and processes > 1:
        # As n=8189, not --n 8189: launchers would look for options of their own that begin so.
        line = command(processes, [verb, *arguments.line(dashes="")], ("-m", "distgan"))
        sys.stdout.flush()
        os.execvpe(line[0], line, environment())
    if processes not in (None, count):
        raise LaunchError(
            f"processes={processes}, but the launcher started {count} ({source}={count}); leave one"
            " of the two out"
        )
