"""`distgan debug`: a few steps of a run in one process, in a folder of its own, with the debugger
where it fails.
"""

import json
import pdb
import sys
import traceback
from pathlib import Path
from typing import Any, get_args

import distgan.train as train
from distgan.config import batch_layout
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.arguments import MANY, Command, switch, whole
from distgan.core.clock import Clock
from distgan.core.errors import DistganError
from distgan.core.files import disk_errors, remove
from distgan.launchers.runs.plan import make_clock

MOST_SAMPLES, MOST_RESULTS = 64, 16  # that are scored, and written when training has ended
FEW_IMAGES = 8  # of a batch that is larger than the recipe's debug_batch: 20 steps in a minute
CHECKS = ("validate_every", "sample_every", "rollback_every")  # a short run has them at its ends
EPILOG = """examples:
  distgan debug sagan data=data/particles                 20 steps
  distgan debug run.yaml --steps 5 --no-debugger
  distgan debug sagan data=data/particles precision=bf16

The folder of the real run is not touched: this one is RUNS/_debug/…, and starts anew each time.
What is set in epochs is scaled to so few steps, fewer samples are scored and written, and batches
of more than 32 images (r3gan: 8) become 8: a line says which settings. A batch that the line gives
is kept.
With the batch of the real run, data order and noise are those of it."""

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
    words, changed, folder = line(options.words, options.steps)
    console.say(
        f"debugging: {options.steps} steps in one process, in {folder}; nothing else is touched"
        + (f"\nscaled to so many steps: {', '.join(changed)}" if changed else "")
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


def line(words: list[str], steps: int) -> tuple[list[str], list[str], Path]:
    """Return (the words of `distgan train` for so many steps; those among them that scale settings
    to this length, for people; the folder, emptied).
    """
    from distgan.data.own_dataset import open_data

    _, run, _ = train.plan(words)
    samples = len(open_data(run.data).train)
    scaled = _small_batch(words, run)
    if scaled:
        _, run, _ = train.plan([*words, *scaled])
    clock = make_clock(run, samples)
    home = Path(run.machine.runs).expanduser()
    folder = home / "_debug" / f"{run.recipe}-{run.delta()}"
    with disk_errors(folder, "delete it, or choose another machine.runs"):
        remove(folder, below=home)
    epochs = min(run.epochs, steps * clock.per_step / samples)
    scaled += [f"{key}={json.dumps(value)}" for key, value in scale(run, epochs, clock).items()]
    return (
        [
            *words,
            *scaled,
            f"epochs={epochs!r}",
            f"machine.folder={json.dumps(str(folder))}",
            "machine.flush_steps=1",
            "machine.journal_every=1",
            "machine.workers=0",
            "machine.self_check=false",  # its message would take the place of the debugger
        ],
        [f"epochs={epochs:.4g}", *scaled],
        folder,
    )


def _small_batch(words: list[str], run: Run) -> list[str]:
    """Return the word that makes batches of images small, none where the line gives the batch, or
    the settings allow no such one.
    """
    given = any(word.startswith("batch=") for word in words[1:])
    if given or run.kind not in ("image", "image_pair") or run.batch <= run.debug_batch:
        return []
    small = [f"batch={FEW_IMAGES}"]
    try:
        _, smaller, _ = train.plan([*words, *small])
        batch_layout.fit(
            smaller.batch, 1, run.machine.accumulation, smaller.group, smaller.group_of
        )
    except DistganError:
        return []
    return small


def scale(run: Run, epochs: float, clock: Clock) -> dict[str, Any]:
    """Return the settings that a run of so few epochs has in place of those of `run`.

    Numbers of epochs keep their share of the run: an epoch (`…_epoch`) on whole steps, a length
    (`…_every`, `…_epochs`) of at least one. So each phase is tried, and none begins after the end.
    """
    short = epochs / run.epochs
    scaled: dict[str, Any] = {}
    cosine = getattr(getattr(run, "lr_restarts", None), "first", None)
    if short < 1 and cosine:
        scaled["lr_restarts.first"] = round(max(cosine * short, clock.at(1).epoch), 6)
    for key, field in type(run).model_fields.items():
        value = getattr(run, key)
        if key == "lr_every" and cosine:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if short < 1 and number and value and key not in CHECKS and _may_be_float(field.annotation):
            if key.endswith("_epoch"):
                before = int(clock.steps(epochs) * value / run.epochs)  # steps, rounded down
                scaled[key] = round(clock.at(before).epoch, 6)
            elif key.endswith(("_every", "_epochs")):
                scaled[key] = round(max(value * short, clock.at(1).epoch), 6)
    if short < 1 and run.patience is not None:
        scaled["patience"] = None
    if run.scored:
        if short < 1:
            scaled["evaluate.schedule"] = [[None, round(epochs, 6)]]
        if run.scored.samples > MOST_SAMPLES:
            scaled["evaluate.samples"] = MOST_SAMPLES
    if "results" in type(run).model_fields:
        results = getattr(run, "results", 0)
        if results is None or type(results) is int and results > MOST_RESULTS:
            scaled["results"] = MOST_RESULTS
    return scaled


def _may_be_float(annotation: Any) -> bool:
    """Return True for the type of a number of epochs, False for one of whole numbers, of steps."""
    return annotation is float or any(map(_may_be_float, get_args(annotation)))
