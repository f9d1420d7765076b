"""`distgan run`: train with several processes on this machine, by `accelerate launch`."""

import argparse
import os
import shlex
import sys

from distgan.core.errors import LaunchError
from distgan.distributed.launch_line import command, environment


def refuse_early(processes: int, arguments: list[str]) -> None:
    """Tell faults of the settings and the data here.

    Of processes that refuse to start, the launcher would print a traceback of its own.
    """
    from distgan import train
    from distgan.config import batch_layout
    from distgan.data.dataset import Data
    from distgan.distributed.environment import resolve_engine

    if not {"-h", "--help"}.intersection(arguments):
        _, run, _ = train.plan([word for word in arguments if not word.startswith("-")])
        batch_layout.fit(run.batch, processes, run.machine.accumulation, run.group, run.group_of)
        resolve_engine(run.machine, run.precision)
        Data(run.data).require(run.recipe, run.kind, run.crop)


def main(argv: list[str]) -> int:
    """`distgan run --processes 2 sagan data=…`.

    Replaces this process, so signals and the exit code are the launcher's.
    """
    parser = argparse.ArgumentParser(
        prog="distgan run",
        usage="distgan run [--processes N] [--show] RECIPE|RUN.yaml key=value …",
        allow_abbrev=False,
        add_help=False,
        description=(
            "Train with several processes on this machine (one per GPU, or gloo on the CPU). Takes"
            " what `distgan train` takes."
        ),
        epilog=(
            "example: distgan run --processes 2 sagan data=data/particles batch=16; distgan run"
            " sagan --help lists the settings"
        ),
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="processes to start; the result does not depend on it (default 1)",
    )
    parser.add_argument(
        "--show", action="store_true", help="print the command instead of running it"
    )
    options, arguments = parser.parse_known_args(argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        parser.print_help()
        return 0 if arguments else 2
    if options.processes < 1:
        parser.error(f"--processes: found {options.processes}, allowed are 1 and more")
    if "--find-batch" in arguments:
        raise LaunchError(
            "--find-batch tries in one process what each will do: distgan train"
            f" {shlex.join(arguments)} --processes={options.processes}"
        )
    return replace(options.processes, arguments, options.show)


def replace(processes: int, arguments: list[str], show: bool) -> int:
    """Become the launcher, or with `show` only print its line."""
    line = command(processes, arguments)
    if show:
        print(shlex.join(line))
        return 0
    if processes > 1:
        refuse_early(processes, arguments)
    sys.stdout.flush()
    os.execvpe(line[0], line, environment())
