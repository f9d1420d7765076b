"""`distgan run`: train with several processes on this machine, by `accelerate launch`."""

import os
import shlex
import sys
from pathlib import Path

import distgan.train as train
from distgan.config import batch_layout
from distgan.core import console
from distgan.core.arguments import MANY, Command, switch, whole
from distgan.core.errors import ConfigError, LaunchError
from distgan.distributed.launch_line import ACCELERATE, command, environment

QUIET = "distgan.distributed.accelerate_launch"


def refuse_early(processes: int, arguments: list[str]) -> Path:
    """Raise the errors of the settings and the data here; return the folder of the run.

    Of processes that refuse to start, the launcher would print a traceback of its own.
    """
    from distgan.data.own_dataset import open_data
    from distgan.distributed.environment import resolve_engine
    from distgan.runs.resolve import folder_of, require_code, resolve, versions
    from distgan.self_check import first_start

    module, run, _ = train.plan([word for word in arguments if not word.startswith("-")])
    batch_layout.fit(run.batch, processes, run.machine.accumulation, run.group, run.group_of)
    resolve_engine(run.machine, run.precision)
    data = open_data(run.data)
    data.require(run)
    version, start, _ = resolve(run, data.fingerprint_for(run))
    run = versions(run)[version]
    folder = folder_of(run, run.identity(data.fingerprint_for(run), start))
    require_code(run, getattr(module, "code", None), folder)
    first_start.inspect_once(module, run, data)
    return folder


COMMAND = Command(
    "run",
    """Train with several processes on this machine (one per GPU, or gloo on the CPU). Takes what
`distgan train` takes: distgan run --processes 2 sagan data=data/particles batch=16""",
    (
        whole(
            "processes",
            "processes to start; the result does not depend on it (default: one for each GPU)",
            1,
            4096,
        ),
        switch("show", "print the command instead of running it"),
        *(option for option in train.COMMAND.options if option.is_switch),
    ),
    train.COMMAND.words,
    least=1,
    most=MANY,
    settings=train.plan,
    epilog=train.EXAMPLES,
    about=train.settings_help,
)


def main(argv: list[str]) -> int:
    """`distgan run --processes 2 sagan data=…`.

    Replaces this process, so signals and the exit code are the launcher's.
    """
    options = COMMAND.parse(argv)
    arguments = options.line("processes", "show")
    processes, why = options.processes or 1, ""
    if options.processes is None:
        processes, why = choose(options.words)
    if options.find_batch:
        raise LaunchError(
            "--find-batch tries in one process what each will do:"
            f" {console.command('train', *arguments, f'--processes={processes}')}"
        )
    if why and not options.show:
        console.say(f"{why}; --processes N starts another number")
    return replace(processes, arguments, options.show)


def choose(words: list[str]) -> tuple[int, str]:
    """Return how many processes to start, and why: one for each GPU, or as many of them as the
    global batch can be shared by; without GPUs one. Of wrong settings one, which names them.
    """
    try:
        _, run, _ = train.plan(words)
    except ConfigError:
        return 1, ""
    gpus = 0 if run.machine.device == "cpu" else gpu_count()
    if not gpus:
        reason = "machine.device=cpu" if run.machine.device == "cpu" else "there is no GPU"
        return 1, f"1 process, as {reason}"
    for processes in range(gpus, 0, -1):
        try:
            group = run.group, run.group_of
            batch_layout.fit(run.batch, processes, run.machine.accumulation, *group)
        except ConfigError:
            continue
        if processes < gpus:
            return processes, (
                f"{processes} of {gpus} GPUs, the most that share batch={run.batch} evenly"
            )
        break
    # Where no number fits, the start is refused with the batches that do.
    return gpus, "1 process, on the only GPU" if gpus == 1 else f"{gpus} processes, one per GPU"


def gpu_count() -> int:
    """Return how many GPUs torch sees."""
    import torch

    return torch.cuda.device_count()


def replace(processes: int, arguments: list[str], show: bool) -> int:
    """Become the launcher, or with `show` only print its line."""
    line = command(processes, arguments)
    if show:
        print(shlex.join(line))
        return 0
    if processes > 1:
        refuse_early(processes, arguments)
        assert line[: len(ACCELERATE)] == ACCELERATE
        line = [sys.executable, "-m", QUIET, *line[len(ACCELERATE) :]]
    sys.stdout.flush()
    os.execvpe(line[0], line, environment())
