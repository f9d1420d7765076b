"""`distgan debug`: a few steps of a run in one process, in a folder of its own, with the debugger
where it fails.
"""

import json
import pdb
import sys
import traceback
from pathlib import Path

import distgan.train as train
from distgan.core import console
from distgan.core.arguments import MANY, Command, switch, whole
from distgan.core.errors import DistganError
from distgan.core.files import disk_errors, remove
from distgan.launchers.runs.plan import make_clock

EPILOG = """examples:
  distgan debug sagan data=data/particles                 20 steps
  distgan debug run.yaml --steps 5 --no-debugger
  distgan debug sagan data=data/particles precision=bf16

The folder of the real run is not touched: this one is RUNS/_debug/…, and starts anew each time.
Batch, data order and noise are those of the real run."""

COMMAND = Command(
    "debug",
    """Train a few steps of a run in one process, in a folder of its own, with the debugger where it
fails.""",
    (
        whole("steps", "steps to train", 1, 1_000_000, default=20),
        switch("no-debugger", "only print where it failed"),
    ),
    train.COMMAND.words,
    least=1,
    most=MANY,
    settings=train.plan,
    epilog=EPILOG,
)


def main(argv: list[str]) -> int:
    options = COMMAND.parse(argv)
    words, folder = line(options.words, options.steps)
    console.say(
        f"debugging: {options.steps} steps in one process, in {folder}; nothing else is touched"
    )
    try:
        code = train.main(words)
    except DistganError:
        raise
    except Exception:
        traceback.print_exc()
        if options.no_debugger or not sys.stdin.isatty():
            console.say(
                "in a terminal the debugger would open here (p NAME prints a value, u goes up a"
                " call, q leaves)"
            )
            return 1
        console.say("the debugger: p NAME prints a value, u goes up a call, q leaves")
        pdb.post_mortem()
        return 1
    if code == 0:
        console.say(
            f"debugging: no fault in {options.steps} steps. next:"
            f" {console.command('run', *options.words)}"
        )
    return code


def line(words: list[str], steps: int) -> tuple[list[str], Path]:
    """Return (the words of `distgan train` for so many steps, the folder, emptied)."""
    from distgan.data.own_dataset import open_data

    _, run, _ = train.plan(words)
    samples = len(open_data(run.data).train)
    clock = make_clock(run, samples)
    home = Path(run.machine.runs).expanduser()
    folder = home / "_debug" / f"{run.recipe}-{run.delta()}"
    with disk_errors(folder, "delete it, or choose another machine.runs"):
        remove(folder, below=home)
    epochs = min(run.epochs, steps * clock.per_step / samples)
    return [
        *words,
        f"epochs={epochs!r}",
        f"machine.folder={json.dumps(str(folder))}",
        "machine.flush_steps=1",
        "machine.journal_every=1",
        "machine.workers=0",
        "machine.self_check=false",  # its message would take the place of the debugger
    ], folder
