"""Faults of trainers of two networks, put into ours one after the other: `torchrun --nproc-per-node
2 tests/programs/trials.py DATA` prints what each one does.

Every trial trains anew, in processes that are started once; the last line is JSON, {trial: what was
measured}. tests/process/quick/test_faults.py reads it.
"""

import contextlib
import json
import sys
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import torch
import torch.distributed as dist
from compare import QUIET, tensors_apart
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from distgan.config import batch_layout
from distgan.core import rng
from distgan.core.clock import Clock
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.data.loader import Stream
from distgan.distributed.ranks import Ranks, SingleProcess, exit_process
from distgan.engine import ddp
from distgan.engine.ddp import Engine
from distgan.engine.player import Player
from distgan.evaluation.features.choice import Choice
from distgan.evaluation.image_evaluator import Evaluator
from distgan.nn import normalization
from distgan.nn.normalization import SpectralNorm
from distgan.recipes import wgan_flowers
from distgan.train import plan

STEPS = 6
SAMPLES = 30  # of an evaluation: no multiple of anything
TINY = [
    "batch=12",
    "bn_group=3",
    "ngf=2",
    "ndf=2",
    "latent=8",
    "precision=float64",
    "machine.device=cpu",
    "machine.timeout_s=60",
    *QUIET,
]
SAGAN = [
    "sagan",
    *TINY,
    "lr_every=0.5",
    "machine.accumulation=2",
]  # the rates fall in the third step and in the fifth
PENALTY = ["wgan_flowers", *TINY, "n_critic=2", "penalty=10", "ema=0.9"]
NOW = {"rank": 0, "bad": False}  # this rank; whether its images are not finite in this step


# ---- the faults
@contextlib.contextmanager
def as_it_is():
    yield


@contextlib.contextmanager
def bad_numbers_on_rank_1():
    """No fault of the trainer: one rank's images are not finite in one step, and all ranks must
    skip it.
    """
    with patch.object(
        transforms,
        "to_unit",
        lambda images, *dtype, usual=transforms.to_unit: usual(images, *dtype).mul_(
            float("nan") if NOW["bad"] else 1
        ),
    ):
        yield


@contextlib.contextmanager
def each_rank_skips_for_itself():
    own = {}

    def backward(self, loss_of, *, last, usual=Engine.backward):
        log = usual(self, loss_of, last=last)
        own["finite"] = torch.isfinite(log["loss"]).float()
        return log

    with (
        bad_numbers_on_rank_1(),
        patch.object(Engine, "backward", backward),
        patch.object(
            ddp,
            "step_where",
            lambda optimizer, finite: optimizer.step() if own["finite"] else None,
        ),
    ):
        yield


@contextlib.contextmanager
def not_divided_by_the_micro_batches():
    def backward(self, loss_of, *, last, usual=Engine.backward):
        self._accumulation = 1
        return usual(self, loss_of, last=last)

    with patch.object(Engine, "backward", backward):
        yield


@contextlib.contextmanager
def reduced_in_every_micro_batch():
    with patch.object(Ranks, "no_sync", lambda self, net: contextlib.nullcontext()):
        yield


@contextlib.contextmanager
def one_counter_of_micro_batches_for_both():
    calls = []

    def step(self, clip, usual=Engine.step):
        calls.append(1)
        return usual(self, clip) if len(calls) % 2 == 0 else (torch.zeros(()), torch.zeros(()))

    with patch.object(Engine, "step", step):
        yield


@contextlib.contextmanager
def schedule_stepped_by_every_process():
    with patch.object(
        Player,
        "update",
        lambda self, loss_of, batch, epoch, usual=Player.update: usual(
            self, loss_of, batch, epoch * self._ranks.world_size
        ),
    ):
        yield


@contextlib.contextmanager
def running_statistics_of_each_rank():
    with patch.object(
        normalization,
        "end_update",
        lambda net, ranks, usual=normalization.end_update: usual(net, SingleProcess(ranks)),
    ):
        yield


@contextlib.contextmanager
def spectral_vectors_seeded_by_rank():
    def start(self, weight, *more, usual=SpectralNorm.__init__):
        with torch.random.fork_rng():
            torch.manual_seed(NOW["rank"])
            usual(self, weight, *more)

    with patch.object(SpectralNorm, "__init__", start):
        yield


@contextlib.contextmanager
def d_not_frozen_in_gs_step():
    with patch.object(Player, "frozen", lambda self: contextlib.nullcontext(self.engine.local)):
        yield


@contextlib.contextmanager
def d_called_wrapped_in_gs_step():
    with patch.object(Player, "frozen", lambda self: contextlib.nullcontext(self)):
        yield


def rewrapped(change):
    """Every network's DDP, changed after it was made."""

    def wrap(self, usual=Engine._wrap):
        net = usual(self)
        if isinstance(net, DistributedDataParallel):
            change(net)
        return net

    return patch.object(Engine, "_wrap", wrap)


@contextlib.contextmanager
def static_graph_and_a_penalty_through_the_wrapped_critic():
    """Either alone is exact here.

    The penalty goes through the bare critic, of which DDP's static graph knows nothing.
    """
    with (
        rewrapped(lambda net: net._set_static_graph()),
        patch.object(Player, "forward_local", Player.__call__),
    ):
        yield


@contextlib.contextmanager
def buffers_broadcast_before_each_forward():
    with rewrapped(lambda net: setattr(net, "broadcast_buffers", True)):
        yield


@contextlib.contextmanager
def penalty_in_a_backward_of_its_own():
    def penalty(*args, usual=wgan_flowers.gradient_penalty):
        value = usual(*args)
        (10 * value).backward()
        return value.detach()

    with patch.object(wgan_flowers, "gradient_penalty", penalty):
        yield


@contextlib.contextmanager
def samples_gathered_and_cut():
    """As by Accelerate's gather_for_metrics, which takes the length of the data set for that of
    what is gathered.
    """
    usual = Ranks.gather

    def gather(self, index, rows, total):
        if total != SAMPLES:  # real images have the length of the data set
            return usual(self, index, rows, total)
        parts = [None] * self.size
        dist.all_gather_object(parts, rows.cpu())
        return (
            torch.cat([part for part in parts if len(part)])[: total - 7] if self.is_main else None
        )

    with patch.object(Ranks, "gather", gather):
        yield


TRIALS = {
    "sagan": (SAGAN, as_it_is),
    "penalty": (PENALTY, as_it_is),
    "one rank's numbers are not finite": (SAGAN, bad_numbers_on_rank_1),
    **{
        fault.__name__: (SAGAN, fault)
        for fault in (
            each_rank_skips_for_itself,
            not_divided_by_the_micro_batches,
            reduced_in_every_micro_batch,
            one_counter_of_micro_batches_for_both,
            schedule_stepped_by_every_process,
            running_statistics_of_each_rank,
            spectral_vectors_seeded_by_rank,
            d_not_frozen_in_gs_step,
            d_called_wrapped_in_gs_step,
            buffers_broadcast_before_each_forward,
            samples_gathered_and_cut,
        )
    },
    **{
        fault.__name__: (PENALTY, fault)
        for fault in (
            static_graph_and_a_penalty_through_the_wrapped_critic,
            penalty_in_a_backward_of_its_own,
        )
    },
}


# ---- a trial
def train(words, ranks, data, alone):
    """(numbers of every step, averaged over ranks.

    Final tensors; score of samples; counts of what happened in DDP, unless `alone`).
    """
    module, run, _ = plan(words)
    layout = batch_layout.fit(
        run.batch, ranks.world_size, ranks.machine.accumulation, run.group, run.group_of
    )
    with torch.random.fork_rng():
        torch.manual_seed(rng.key(run.seed, "init"))
        recipe = module.Recipe(run, ranks, layout, data.shape)
    counts = {} if alone else watched(recipe)
    clock = Clock(layout.batch * recipe.run.batches_per_step, len(data.train))
    stream = iter(Stream(data, run.seed, layout, ranks.rank, ranks.device, resident_bytes=1 << 30))
    rows = []
    for step in range(STEPS):
        NOW["bad"] = step == 2 and (alone or ranks.rank == 1)
        log = recipe.step(
            [next(stream) for _ in range(recipe.run.batches_per_step)], clock.at(step)
        )
        rows.append(ranks.all_reduce_mean(torch.stack([value.double() for value in log.values()])))
    tensors = {
        f"{name}.{key}": value.detach().clone()
        for name, player in recipe.players.items()
        for key, value in player.tensors().items()
    }
    score = Evaluator(ranks, data, SAMPLES, Choice())(recipe.sample)["score"]
    return torch.stack(rows).nan_to_num(0), tensors, score, counts


def watched(recipe):
    """Counts, by player: reductions of gradients, broadcasts of buffers, and tensors of D in which
    G's step left a gradient.
    """
    counts = {"reductions": 0, "broadcasts": 0, "left": 0}

    def reduce(state, bucket):
        counts["reductions"] += 1
        return allreduce_hook(dist.group.WORLD, bucket)

    def sync(net, usual):
        counts["broadcasts"] += 1
        usual()

    def update_g(*args, usual=recipe.G.update):
        parameters = list(recipe.D.module.parameters())
        for p in parameters:
            p.grad = None
        log = usual(*args)
        counts["left"] += sum(p.grad is not None for p in parameters)
        return log

    for player in recipe.players.values():
        net = player.engine._wrapped
        net.register_comm_hook(None, reduce)
        net._sync_buffers = lambda net=net, usual=net._sync_buffers: sync(net, usual)
    recipe.G.update = update_g
    return counts


def measure(expected, words, fault, ranks, data):
    """What a fault does: how far its run lies from that of one process (infinite where it is not
    finite), or the error; and the counts.
    """
    try:
        with fault():
            numbers, tensors, score, counts = train(words, ranks, data, alone=False)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    usual = expected[0].abs().mean(0).clamp_min(1e-12)
    apart = {
        "numbers": float(((expected[0] - numbers).abs() / expected[0].abs().maximum(usual)).max()),
        **tensors_apart(expected[1], tensors),
        "score": abs(expected[2] - score) / expected[2],
    }
    worst = torch.tensor(
        [value if value == value else float("inf") for value in apart.values()], dtype=torch.float64
    )
    dist.all_reduce(
        worst, dist.ReduceOp.MAX
    )  # a rank that differs from the others differs from the reference
    return {"apart": dict(zip(apart, worst.tolist(), strict=True)), **counts}


def main(folder: str) -> None:
    torch.set_num_threads(1)
    data, ranks, expected, found = Data(folder), {}, {}, {}
    for name, (words, fault) in TRIALS.items():
        words = [*words, f"data={folder}"]
        machine = plan(words)[1].machine
        if machine.accumulation not in ranks:
            ranks[machine.accumulation] = Ranks(machine, "float64")
        mine = ranks[machine.accumulation]
        NOW["rank"] = mine.rank
        bad = fault in (bad_numbers_on_rank_1, each_rank_skips_for_itself)
        what = bad, *(word for word in words if not word.startswith("machine."))
        if what not in expected:
            solo = SingleProcess(mine)
            solo.machine = machine.model_copy(update={"accumulation": 1})
            with bad_numbers_on_rank_1() if bad else as_it_is():
                expected[what] = train(words, solo, data, alone=True)
        found[name] = measure(expected[what], words, fault, mine, data)
    if mine.is_main:
        print(json.dumps(found))
    mine.close()
    exit_process(0)


if __name__ == "__main__":
    main(sys.argv[1])
