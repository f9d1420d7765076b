"""The self-check with faults put in, on several ranks; started by
tests/process/quick/test_self_check_ranks.py: self_check_cases.py DATA ENGINE STAGE.

Prints one JSON object: for each precision, each case's largest difference as a multiple of what is
allowed, and what it is in.
"""

import contextlib
import importlib.util
import json
import sys
from pathlib import Path
from unittest.mock import patch

import torch

from distgan.config import batch_layout
from distgan.config.sections import Machine
from distgan.core import rng
from distgan.data import loader
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks, exit_process
from distgan.engine import ddp, player
from distgan.nn import normalization
from distgan.recipes import sagan
from distgan.self_check import comparison as doctor
from distgan.self_check.inspection import inspect

SMALL = {"ngf": 4, "ndf": 4, "latent": 8, "batch": 12, "clip": None}
ALONE = {"bn_group": 6}  # groups inside a rank, whose running statistics must be averaged


def noise_per_rank():
    return patch.object(
        loader.MicroBatch,
        "noise",
        lambda self, seed, purpose, size, total: torch.randn(len(self.real), size),
    )


def same_noise():
    return patch.object(
        loader.MicroBatch,
        "noise",
        lambda self, seed, purpose, size, total: rng.normal(
            seed, purpose, self.batch_index, (len(self.real), size)
        ),
    )


def statistics_per_rank():
    return patch.object(
        normalization.GroupBatchNorm2d, "_across", normalization.GroupBatchNorm2d._inside
    )


def running_statistics_per_rank():
    """Nothing in training depends on them: only the networks that are saved and drawn from."""

    class Alone:
        all_reduce_mean_async = staticmethod(lambda x: lambda: x)

    usual = normalization.end_update
    return patch.object(normalization, "end_update", lambda net, ranks: usual(net, Alone))


def gradients_not_averaged():
    return patch.object(player.Player, "__call__", lambda self, *args: self.engine.local(*args))


def not_divided():
    """Gradients summed over ranks, which Adam hides from the weights."""
    usual = ddp.Engine.backward

    def backward(self, loss_of, *, last):
        return usual(
            self, lambda: ((found := loss_of())[0] * self.ranks.world_size, found[1]), last=last
        )

    return patch.object(ddp.Engine, "backward", backward)


@contextlib.contextmanager
def not_frozen():
    """What G's update leaves in D is still there when D's begins."""

    @contextlib.contextmanager
    def frozen(self):
        yield self.engine.local

    usual_begin, usual_step = ddp.Engine.begin, ddp.Engine.step

    def begin(self):
        if self.ranks.world_size == 1:
            usual_begin(self)

    def step(self, clip):
        found = usual_step(self, clip)
        self.optimizer.zero_grad()
        return found

    with (
        patch.object(player.Player, "frozen", frozen),
        patch.object(ddp.Engine, "begin", begin),
        patch.object(ddp.Engine, "step", step),
    ):
        yield


def clipped(limit: float = 1.0):
    """As DeepSpeed does where nothing is said."""
    usual = ddp.Engine.step
    return patch.object(
        ddp.Engine,
        "step",
        lambda self, clip: usual(self, limit if self.ranks.world_size > 1 else clip),
    )


def faster(factor: float = 1.1):
    usual = player.Player.update

    def update(self, *args):
        rates, self._rates = (
            self._rates,
            [rate * factor if self._ranks.world_size > 1 else rate for rate in self._rates],
        )
        try:
            return usual(self, *args)
        finally:
            self._rates = rates

    return patch.object(player.Player, "update", update)


def average_left_behind():
    usual = player.Player._update_ema
    return patch.object(
        player.Player,
        "_update_ema",
        lambda self, finite: (
            usual(self, finite) if self._ranks.world_size == 1 or self._ranks.rank else None
        ),
    )


FAULTS = {
    "noise per rank": (noise_per_rank, {}),
    "the same noise on every rank": (same_noise, {}),
    "batch statistics per rank": (statistics_per_rank, {}),
    "running statistics per rank": (running_statistics_per_rank, ALONE),
    "gradients not averaged": (gradients_not_averaged, {}),
    "gradients not divided": (not_divided, {}),
    "D not frozen": (not_frozen, {}),
    "clipped to 1": (clipped, {}),
    "a learning rate of 1.1": (faster, {}),
    "an average that does not follow": (average_left_behind, {}),
}

ONLY_FLOAT32 = ("a learning rate of 1.1",)  # is no larger than the rounding of bf16


def zero_clipped():
    """The key left out, and nothing said in the step either: DeepSpeed's own default holds."""
    from distgan.engine.deepspeed_zero import Zero

    usual = Zero._settings

    def step(self, clip):
        self._wrapped.step()
        norm = torch.as_tensor(self._wrapped.get_global_grad_norm(), dtype=torch.float32)
        return norm, torch.ones_like(norm)

    def settings(self):
        return {key: value for key, value in usual(self).items() if key != "gradient_clipping"}

    both = contextlib.ExitStack()
    both.enter_context(patch.object(Zero, "_settings", settings))
    both.enter_context(patch.object(Zero, "step", step))
    return both


ZERO_FAULTS = {
    "noise per rank": (noise_per_rank, {}),
    "batch statistics per rank": (statistics_per_rank, {}),
    "clipping left to DeepSpeed": (zero_clipped, {}),
}


def checked(
    ranks: Ranks, data: Data, fault=contextlib.nullcontext, accumulation: int = 1, **changes
) -> doctor.Report:
    run = sagan.Settings(
        data="given", machine=ranks.machine, precision=ranks.precision, **SMALL | changes
    )
    layout = batch_layout.fit(run.batch, ranks.world_size, ranks.machine.accumulation, run.group)
    with fault():
        return doctor.check(sagan, run, ranks, data, layout)


def inspected(ranks: Ranks, data: Data) -> dict[str, list[str]]:
    """Inspect recipes of one's own on rank 0, while the others wait; by name, what is found."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "support" / "data"))
    from planted_faults import ERRORS, text_with

    names = ("loss * rank", "torch.distributed.get_rank", "a collective", "torch.randn")
    recipes = {"": ()} | {fault.name: fault.edits for fault in ERRORS if fault.name in names}

    def inspect_on_rank_zero() -> dict[str, list[str]]:
        found = {}
        for name, edits in recipes.items():
            Path("own.py").write_text(text_with(*edits))
            spec = importlib.util.spec_from_file_location("own", "own.py")
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            run = module.Settings(recipe="own", data="given", width=4, batch=12)
            file = module.Recipe.step.__code__.co_filename
            found[name] = [str(finding) for finding in inspect(module, {file}, run, ranks, data)]
        return found

    return ranks.on_rank_zero(inspect_on_rank_zero)


def main(folder: str, engine: str, stage: str | None = None) -> None:
    data, found = Data(folder), {}
    faults = (
        FAULTS
        if engine == "ddp"
        else (
            ZERO_FAULTS
            if stage != "0"
            else {k: v for k, v in ZERO_FAULTS.items() if "DeepSpeed" not in k}
        )
    )
    for precision in ("float64", "float32", "bf16") if engine == "ddp" else ("float32",):
        ranks = Ranks(
            Machine(device="cpu", engine=engine, zero_stage=stage and int(stage)), precision
        )
        reports = {"": checked(ranks, data)}
        reports |= {
            name: checked(ranks, data, fault, **changes)
            for name, (fault, changes) in faults.items()
            if precision == "float32" or precision == "bf16" and name not in ONLY_FLOAT32
        }
        reports["again"] = checked(ranks, data, **ALONE)
        found[precision] = {
            name: (min(report.worst.apart / report.worst.allowed, 1e12), str(report.worst))
            for name, report in reports.items()
        }
    if engine == "ddp":
        found["own"] = inspected(ranks, data)
    if ranks.is_main:
        print("FOUND " + json.dumps(found), flush=True)
    ranks.close()
    exit_process(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
