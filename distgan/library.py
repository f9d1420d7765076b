"""Train, score and use runs from Python: notebooks, scripts, threads, ranks under torchrun.

`import distgan` gives the names below; docs/library.md shows them. A run is the same as that of the
command line with the same recipe, data and settings: each continues the other's. Errors are
exceptions (`distgan.errors`), nothing ends the process, and no signal handler is left behind.
"""

import contextlib
import copy
import json
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import distgan.train as command_line
from distgan.commands import evaluate as _evaluate
from distgan.commands import report as _report
from distgan.commands import trained_run
from distgan.commands._drawn_images import Request
from distgan.config.introspection import flatten
from distgan.core import console
from distgan.core.errors import ConfigError, LaunchError, RunError
from distgan.core.interrupts import end_with_parent
from distgan.data.own_dataset import name_of
from distgan.distributed import launch_line, process_group
from distgan.distributed.environment import process_count
from distgan.distributed.map_over_ranks import map_over_ranks
from distgan.distributed.ranks import SingleProcess
from distgan.evaluation.drawn import scored
from distgan.launchers.local.run import refuse_early
from distgan.monitor.journal import read_journal
from distgan.outputs import image_results
from distgan.recipes import _own_code
from distgan.recipes._base import require_method
from distgan.recipes._catalog import Module, RecipeModule, resolve_recipe
from distgan.runs import class_source, records
from distgan.runs.history import read_history
from distgan.training import attempt


def train(
    recipe: str | Path | type, *, data: Any, processes: int = 1, **settings: Any
) -> "TrainedRun":
    """Train a run, or continue it, and return it when it has ended. Collective under torchrun.

    recipe: a name (`"sagan"`), a file (`"my_gan.py"`), an import path, a run file, or a class, also
    one that is defined in the script or notebook itself.
    data: a folder of shards, or a data set of your own (docs/loader.md).
    processes: start so many on this machine; of a recipe that is named or has a file. Under
    torchrun or accelerate launch leave it out: their processes train.
    settings: those of the command line, as `epochs=50, batch=64, evaluate={"samples": 500}`.

    Ctrl-C, or "interrupt" in a notebook, saves and returns a run whose `state` is `stopped`.
    Raises ConfigError, DataError, RunError or LaunchError before anything is changed where the
    settings, the data or the run folder do not fit.
    """
    launched = process_count()[1]
    if type(processes) is not int or processes < 1:
        raise ConfigError(f"processes={processes!r}: allowed is a whole number from 1")
    if launched > 1 and processes not in (1, launched):
        raise LaunchError(
            f"processes={processes}, but the launcher started {launched}; leave processes out"
        )
    if class_source.is_interactive(recipe) and max(launched, processes) > 1:
        raise ConfigError(
            "a class that was typed into a notebook trains in one process; save it to a file,"
            " my_gan.py, and give its path: distgan.train('my_gan.py', processes=2, …)"
        )
    with _as_in_a_new_process():
        return _train(recipe, data, launched, processes, settings)


def _train(
    recipe: str | Path | type, data: Any, launched: int, processes: int, settings: dict[str, Any]
) -> "TrainedRun":
    module, tree = _resolved(recipe)
    named = data if isinstance(data, str | Path) else name_of(data)
    words = _words({"data": named, **settings})
    run = command_line.settings(module, tree, words)
    given = command_line.loading.override({}, words)
    if launched == 1 and processes > 1:
        if isinstance(recipe, type) or not isinstance(data, str | Path):
            raise ConfigError(
                f"processes={processes}: give the recipe by its name or file, as in"
                " 'my_gan.py:MyGAN', and the data by a folder, or start the script itself with"
                " torchrun"
            )
        return _train_with(processes, [str(recipe), *words])
    return TrainedRun(attempt.train(module, run, given).folder)


def load(checkpoint: str | Path, player: str = "G", device: str = "cpu") -> nn.Module:
    """Return a network of a run, `RUN@best`, `RUN@last`, `RUN@epoch=1000`, `RUN@STEP` or `RUN`: see
    `TrainedRun.generator`.
    """
    return TrainedRun(checkpoint).generator(player, device)


class TrainedRun:
    """A run folder, trained or in training: `RUN`, or one of its checkpoints, `RUN@best`,
    `RUN@last`, `RUN@epoch=1000`, `RUN@STEP`. `RUN` alone means the best checkpoint, or the last
    where no score has found a best.
    """

    def __init__(self, run: str | Path):
        self._text = str(run)
        head = self._text.rpartition("@")[0]
        path = Path(self._text).expanduser()
        self.folder = path if path.is_dir() or not head else Path(head).expanduser()
        if (self.folder / "checkpoint.json").is_file():
            self.folder = self.folder.parents[1]
        if not (self.folder / "config.yaml").is_file():
            raise ConfigError(f"{run}: no run folder; distgan.train makes one")
        self._recipes: dict[tuple[Path, str], Any] = {}

    def __repr__(self) -> str:
        return f"TrainedRun({self._text!r})"

    @property
    def state(self) -> str:
        """`running`, `done`, `stopped` or `failed`."""
        return str(records.read(self.folder / "status.json").get("state"))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, as in config.yaml."""
        return read_history(self.folder).config

    @property
    def best(self) -> dict[str, Any] | None:
        """The best score: `step`, `epoch`, `score`, `metric`; None before the first."""
        return read_history(self.folder).best

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that a conditional run draws; () of others."""
        _, run = trained_run.settings(self.folder, "cpu")
        labels = trained_run.labels_of(run, self.folder)
        return labels.names if labels else ()

    @property
    def journal(self) -> Any:
        """The numbers of training: a pandas DataFrame with a row for each step of the journal; a
        list of dicts where pandas is not installed.
        """
        rows = read_journal(self.folder / "journal.jsonl")
        try:
            import pandas
        except ImportError:
            return rows
        return pandas.DataFrame(rows)

    @property
    def checkpoint(self) -> Path:
        """The folder of the checkpoint, verified; ConfigError where there is none."""
        return trained_run.locate(self._text)

    def generator(self, player: str = "G", device: str = "cpu") -> nn.Module:
        """Return a player's network with its averaged weights, in eval mode, for inference.

        A copy of your own on `device`. What it takes and returns is the recipe's: noise [n, latent]
        to images [n, channels, height, width] in [-1, 1] for most.
        """
        players = self._recipe(device).players
        if player not in players:
            raise ConfigError(f"player {player!r}: this run has {', '.join(players)}")
        with _as_in_a_new_process():
            return copy.deepcopy(players[player].ema).requires_grad_(False).eval()

    def sample(
        self, n: int = 64, *, classes: str | Iterable[str] = (), device: str = "cpu"
    ) -> torch.Tensor:
        """Return the first `n` samples that `distgan generate` draws, on the CPU: images as uint8
        [n, channels, height, width], vectors as float32 [n, size]. Sample i depends on the seed and
        i alone.

        classes: of conditional networks, the name of a class, or several to draw in turn.
        """
        recipe = self._recipe(device)
        require_method(recipe, recipe.run, "sample")
        names = (classes,) if isinstance(classes, str) else tuple(map(str, classes))
        labels = getattr(recipe, "labels", None)
        if names and labels is None:
            raise ConfigError(
                f"classes={', '.join(names)}: the networks of this run are given no classes"
            )
        numbers = tuple(labels.number(name) for name in names) if labels else ()
        drawing = Request(names, numbers).drawing(recipe)
        ranks = next(iter(recipe.players.values()))._ranks

        def draw(index: np.ndarray) -> tuple[torch.Tensor]:
            chosen = drawing.classes(index)
            given = () if chosen is None else (chosen,)
            drawn = drawing.sample(index, image_results.RESULTS_NOISE, *given)
            return (scored(drawn, index, recipe.run.kind),)

        with _as_in_a_new_process(), console.bar("sampling", n, "samples") as bar:
            return map_over_ranks(ranks, range(n), draw, bar)[0]

    def repair(self, inputs: torch.Tensor, device: str = "cpu") -> torch.Tensor:
        """Return what a network of signals or image pairs makes of inputs [n, frames], or of images
        [n, channels, height, width] in [-1, 1]: the same shape, on the CPU.
        """
        recipe = self._recipe(device)
        require_method(recipe, recipe.run, "repairer")
        with _as_in_a_new_process():
            return recipe.repairer()(inputs.to(device)).cpu()

    def evaluate(self, n: int | None = None, **options: Any) -> dict[str, Any]:
        """Score samples of the checkpoint as `distgan evaluate RUN` does, and return the scores
        with the conditions they were made under; they are stored in the run folder as well.

        n: how many samples; for the options see `distgan evaluate --help`, as `metrics="frechet"`.
        Collective under torchrun: every rank computes its part, every rank gets the result.
        """
        if "processes" in options:
            raise ConfigError(
                "processes: this call is evaluated by the processes of the program; start it with"
                " torchrun, or use `distgan evaluate --processes N`"
            )
        given = {"n": n, **options}.items()
        words = [f"{name}={_joined(value)}" for name, value in given if value is not None]
        with _as_in_a_new_process():
            return _evaluate.measure([self._text, *words])

    def report(self) -> Path:
        """Write report.html into the run folder, one file that opens anywhere; return its path."""
        return _report.write(self.folder)

    def _recipe(self, device: str) -> Any:
        """Return the recipe with the checkpoint's networks on `device`, in this process alone."""
        checkpoint = self.checkpoint
        if (checkpoint, device) not in self._recipes:
            with _as_in_a_new_process():
                module, run = trained_run.settings(checkpoint.parents[1], device)
                ranks = SingleProcess.on(device, run.precision)
                recipe = trained_run.load(module, run, ranks, checkpoint)
            self._recipes = {(checkpoint, device): recipe}
        return self._recipes[checkpoint, device]


def _resolved(recipe: str | Path | type) -> tuple[Module, dict[str, Any]]:
    """Return the recipe's module, and the settings that a preset or a run file writes."""
    if not isinstance(recipe, type):
        return resolve_recipe(str(recipe))
    own = f"{recipe.__module__}".removeprefix("distgan.recipes.")
    if own != recipe.__module__:  # one of distgan's
        return resolve_recipe(own)
    code = class_source.of_class(recipe)
    return RecipeModule(*_own_code.load(code)), {"recipe": code.name}


def _words(settings: dict[str, Any]) -> list[str]:
    """Return settings as the command line has them: `key.path=value`; ConfigError for a value that
    no setting has.
    """
    try:
        pairs = [
            (key, json.dumps(value, default=_plain, ensure_ascii=False))
            for key, value in flatten(settings)
        ]
    except TypeError as error:
        raise ConfigError(f"the settings of distgan.train: {error}") from None
    return [f"{key}={value}" for key, value in pairs]


def _plain(value: Any) -> Any:
    """Return what JSON has for a path, or a number or an array of NumPy's or torch's."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r:.100} is a {type(value).__name__}, and no setting has such a value")


@contextlib.contextmanager
def _as_in_a_new_process() -> Iterator[None]:
    """Compute as the command line does, whatever the caller has set in torch; restore that, and
    leave a process group that a failed call has made.
    """
    before, dtype, device = process_group.existing(), torch.get_default_dtype(), None
    if (other := torch.get_default_device()).type != "cpu":
        device = other
        torch.set_default_device(None)
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.set_default_dtype(torch.float32)
    plain = [torch.autocast(kind, enabled=False) for kind in ("cpu", "cuda")]
    try:
        with torch.inference_mode(False), torch.enable_grad(), plain[0], plain[1]:
            with _own_code.in_a_program():
                yield
    except BaseException:
        process_group.leave(before)
        raise
    finally:
        torch.set_default_dtype(dtype)
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
        if device is not None:
            torch.set_default_device(device)


def _joined(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _train_with(processes: int, words: list[str]) -> TrainedRun:
    """Train in processes of their own, whose output is printed here; RunError as they say it."""
    folder = refuse_early(processes, words)
    line = launch_line.command(processes, words)
    errors: list[str] = []
    with subprocess.Popen(
        line,
        env=launch_line.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C in a terminal reaches it once, from here
        preexec_fn=end_with_parent,
    ) as launched:
        assert launched.stdout
        while True:
            try:
                for text in launched.stdout:
                    print(text, end="", flush=True)
                    if errors or text.startswith("error: "):
                        errors.append(text)
                break
            except KeyboardInterrupt:  # save and leave
                launched.send_signal(signal.SIGINT)
    code, said = launched.returncode, "".join(errors[:20]).removeprefix("error: ").strip()
    # Launchers make 1 of any code but 0; a run that was asked to stop has recorded it.
    if code and (said or TrainedRun(folder).state != "stopped"):
        raise RunError(said or f"training ended with code {code}; its output says why")
    return TrainedRun(folder)
