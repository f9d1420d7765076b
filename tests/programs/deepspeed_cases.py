"""Two players in DeepSpeed engines against straight-line torch at the global batch; started by
tests/process/quick/test_deepspeed.py on several ranks, once per stage.

Prints one JSON object: for each case its largest relative difference of weights, optimizer state
and gradient norms from the reference.
"""

import contextlib
import copy
import dataclasses
import functools
import json
import sys

import torch
from torch import nn
from torch.nn import functional as F

from distgan.config.sections import Machine
from distgan.core.errors import LaunchError
from distgan.distributed.environment import EngineChoice
from distgan.distributed.ranks import Ranks, SingleProcess, exit_process
from distgan.engine import deepspeed_zero as zero
from distgan.engine.ddp import Engine
from distgan.engine.player import Player
from distgan.nn import normalization

BATCH, LATENT = 36, 4  # cut by 2 or 3 ranks, and 1 to 3 micro-batches
ADAM = functools.partial(torch.optim.Adam, lr=2e-3, betas=(0.0, 0.9), weight_decay=1e-4)
RMSPROP = functools.partial(torch.optim.RMSprop, lr=1e-3)
SGD = functools.partial(
    torch.optim.SGD, lr=0.05
)  # the only one of these that shows a wrong scale of a gradient
MOMENTUM = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9)


@dataclasses.dataclass(frozen=True)
class Case:
    optimizer: functools.partial = ADAM
    steps: int = 4
    critic: int = 1  # updates of D per step
    clip: float | None = None
    clamp: float | None = None
    penalty: float = 0.0
    nan: tuple[int, ...] = ()  # steps in which D's loss is not finite on the last rank
    precision: str = "float32"
    accumulation: int = 1
    channels_last: bool = False
    frozen: bool = False  # D's first layer does not train
    tuning: dict = dataclasses.field(default_factory=dict)  # of DeepSpeed


CASES = {
    "adam": Case(),
    "sgd": Case(SGD),
    "accumulation and clip": Case(ADAM, accumulation=2, clip=0.05),
    "sgd, accumulation 3 and clip": Case(SGD, accumulation=3, clip=0.05),
    "rmsprop, 3 updates of D, clamp": Case(RMSPROP, critic=3, clamp=0.1),
    "penalty": Case(SGD, penalty=10.0),
    "penalty, accumulation and momentum": Case(MOMENTUM, penalty=10.0, accumulation=2),
    "not finite": Case(ADAM, steps=5, nan=(0, 2), clip=0.5),
    "small buckets": Case(
        SGD, accumulation=2, tuning={"reduce_bucket_size": 50, "allgather_bucket_size": 50}
    ),
    "dealt in turn, overlap": Case(
        ADAM, accumulation=2, tuning={"round_robin_gradients": True, "overlap_comm": True}
    ),
    "piece by piece": Case(
        MOMENTUM,
        accumulation=2,
        tuning={
            "contiguous_gradients": False,
            "reduce_scatter": False,
            "allgather_partitions": False,
        },
    ),
    "channels last": Case(SGD, channels_last=True),
    "first layer of D fixed": Case(ADAM, accumulation=2, penalty=10.0, clip=0.5, frozen=True),
}


# ---- the game
def networks(case: Case) -> tuple[nn.Module, nn.Module]:
    G = nn.Sequential(
        nn.Linear(LATENT, 16),
        nn.Tanh(),
        nn.Unflatten(1, (1, 4, 4)),
        nn.Conv2d(1, 3, 3, padding=1),
        nn.Tanh(),
    )
    conv = normalization.spectral_norm(nn.Conv2d(3, 5, 3, padding=1))
    conv.requires_grad_(not case.frozen)
    return G, nn.Sequential(
        conv, nn.Tanh(), nn.Conv2d(5, 6, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(24, 1)
    )


def inputs(case: Case, step: int, turn: int) -> list[torch.Tensor]:
    """Of the global batch, all from the step.

    Reals, noise, where between real and fake the penalty is taken, what is added to D's loss.
    """
    chance = torch.Generator().manual_seed(100 * step + turn)
    add = torch.zeros(BATCH)
    add[-1] = float("nan") if step in case.nan else 0.0
    return [
        torch.randn(BATCH, 3, 4, 4, generator=chance),
        torch.randn(BATCH, LATENT, generator=chance),
        torch.rand(BATCH, 1, 1, 1, generator=chance),
        add,
    ]


def d_loss(judge, inside, fake, case: Case, real, where, add) -> tuple[torch.Tensor, dict]:
    loss = (F.softplus(-judge(real)).flatten() + F.softplus(judge(fake)).flatten() + add).mean()
    if not case.penalty:
        return loss, {}
    between = (real + where * (fake - real)).requires_grad_()
    (slope,) = torch.autograd.grad(inside(between).sum(), between, create_graph=True)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return loss + case.penalty * penalty, {"penalty": penalty}


# ---- by hand
def reference(case: Case, steps: int):
    """The same in one process without any engine: (nets, optimizers, norms)."""
    torch.manual_seed(0)
    nets = networks(case)
    optimizers, norms = [case.optimizer(net.parameters()) for net in nets], []
    G, D = ((lambda x, net=net: cast(net, x, case)) for net in nets)

    def update(i: int, loss_of) -> None:
        optimizers[i].zero_grad()
        normalization.begin_update(nets[i])
        loss = loss_of()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(nets[i].parameters(), case.clip or float("inf"))
        if not torch.isfinite(loss):
            # what is added to the loss has no gradient: the update is skipped for the loss's sake
            norm = loss.detach()
        if torch.isfinite(norm):
            optimizers[i].step()
        clamp(i)
        norms.append(norm.item())

    def clamp(i: int) -> None:
        for p in nets[i].parameters() if case.clamp and i else ():
            p.data.clamp_(-case.clamp, case.clamp)

    clamp(1)
    for step in range(steps):
        for turn in range(case.critic):
            real, noise, where, add = inputs(case, step, turn)
            fake = G(noise).detach()
            update(
                1,
                lambda real=real, where=where, add=add, fake=fake: d_loss(
                    D, D, fake, case, real, where, add
                )[0],
            )
        update(0, lambda noise=noise: F.softplus(-D(G(noise))).mean())
    return nets, optimizers, norms


def cast(net: nn.Module, x: torch.Tensor, case: Case) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bf16"):
        return net(x).float()


# ---- in engines
def start(case: Case, stage: int, engine: str = "deepspeed") -> Ranks:
    ranks = Ranks(
        Machine(device="cpu", accumulation=case.accumulation, channels_last=case.channels_last),
        case.precision,
    )
    ranks.engine_choice = EngineChoice(engine, stage, {"zero_optimization": case.tuning})
    return ranks


def players(case: Case, ranks: Ranks, seed: int = 0) -> list[Player]:
    # Another seed on every rank but the first, whose weights and buffers all must take. (DDP takes
    # the weights.)
    torch.manual_seed(seed + ranks.rank * (ranks.engine_choice.engine == "deepspeed"))
    return [
        Player(ranks, net, case.optimizer, clip=case.clip, clamp=case.clamp if i else None)
        for i, net in enumerate(networks(case))
    ]


def play(
    case: Case, ranks: Ranks, pair: list[Player], first: int, last: int, frozen=Player.frozen
) -> list[float]:
    """Steps `first` to `last` - 1; the gradient norms."""
    G, D = pair
    norms = []

    def cut(tensors):
        """Micro-batches of this rank.

        Neighbouring slices of each micro-batch of the global batch.
        """
        micros = zip(*(x.chunk(ranks.machine.accumulation) for x in tensors), strict=True)
        return [[x.chunk(ranks.world_size)[ranks.rank] for x in micro] for micro in micros]

    def of_d(micro):
        real, noise, where, add = micro
        return d_loss(D, D.forward_local, G.generate(noise), case, real, where, add)

    def of_g(micro):
        with frozen(D) as judge:
            return F.softplus(-judge(G(micro[1]))).mean(), {}

    for step in range(first, last):
        for turn in range(case.critic):
            micros = cut(inputs(case, step, turn))
            norms.append(D.update(of_d, micros, 0.0)["grad_norm"].item())
        norms.append(G.update(of_g, micros, 0.0)["grad_norm"].item())
    return norms


# ---- how far apart
def apart(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    scale = max(theirs.abs().max().item(), 1e-12)
    found = ((mine.double() - theirs.double()).abs().max() / scale).item()
    return found if found == found else float("inf")


def difference(pair: list[Player], norms: list[float], reference) -> float:
    nets, optimizers, theirs = reference
    found = [0.0]
    for player, net, optimizer in zip(pair, nets, optimizers, strict=True):
        expected = net.state_dict()
        found += [
            apart(value, expected[name]) for name, value in player.module.state_dict().items()
        ]
        mine, state = player.engine.optimizer_state(), optimizer.state_dict()["state"]
        assert mine.keys() == state.keys() and all(
            mine[i].keys() == state[i].keys() for i in state
        ), (mine, state)
        found += [
            apart(torch.as_tensor(mine[i][key]), torch.as_tensor(value))
            for i in state
            for key, value in state[i].items()
            if value is not None
        ]
    for a, b in zip(norms, theirs[len(theirs) - len(norms) :], strict=True):
        assert (a - a == 0) == (b - b == 0), (a, b)  # finite or not, alike
        found += [abs(a - b) / b] if b - b == 0 else []
    return max(found)


def run(case: Case, stage: int, engine: str = "deepspeed", **how) -> float:
    ranks = start(case, stage, engine)
    pair = players(case, ranks)
    norms = play(case, ranks, pair, 0, case.steps, **how)
    return difference(pair, norms, reference(case, case.steps))


def resumed(case: Case, stage: int) -> float:
    """Three steps under ZeRO on all ranks, three in one plain process, three under ZeRO, in engines
    that have gone elsewhere before.
    """
    ranks = start(case, stage)
    alone = SingleProcess(start(dataclasses.replace(case, accumulation=1), stage))
    pair, norms = players(case, ranks), []
    norms += play(case, ranks, pair, 0, 3)
    plain, again = players(case, alone, seed=7), players(case, ranks, seed=8)
    play(case, ranks, again, 20, 22)
    for old, new, on, first in ((pair, plain, alone, 3), (plain, again, ranks, 6)):
        for a, b in zip(old, new, strict=True):
            state = copy.deepcopy(a.state())
            b.load(copy.deepcopy(a.tensors()), copy.deepcopy(state))
            same = b.state()["optimizer"]
            assert all(
                torch.equal(torch.as_tensor(same[i][k]), torch.as_tensor(v))
                for i in same
                for k, v in state["optimizer"][i].items()
            )
        norms += play(case, on, new, first, first + 3)
    return difference(again, norms, reference(case, 9))


def as_ddp(case: Case) -> float:
    """DeepSpeed at stage 0 against DDP on the same ranks, for a precision that has no reference by
    hand.
    """
    ends = []
    for engine in ("deepspeed", "ddp"):
        ranks = start(case, 0, engine)
        pair = players(case, ranks)
        norms = play(case, ranks, pair, 0, case.steps)
        ends.append(
            [
                torch.tensor([n for n in norms if n - n == 0]),
                *(value for p in pair for value in p.module.state_dict().values()),
            ]
        )
    return max(apart(a, b) for a, b in zip(*ends, strict=True))


# ---- faults, put back: each must be seen
def with_fault(name: str, case: Case, stage: int) -> float | str:
    kept = {key: vars(zero.Zero)[key] for key in ("_settings", "step", "clamp", "begin")}
    frozen = Player.frozen
    try:
        if name == "clipping left to DeepSpeed":
            zero.Zero._settings = lambda self: {
                k: v for k, v in kept["_settings"](self).items() if k != "gradient_clipping"
            }
            zero.Zero.step = _step_as_configured
        elif name == "weights clamped alone":
            zero.Zero.clamp = Engine.clamp
        else:
            frozen = _not_frozen
        if name == "D not frozen, gradients kept":
            zero.Zero.begin = lambda self: None
        return run(case, stage, frozen=frozen)
    except AssertionError as error:
        return f"AssertionError: {error}"
    finally:
        for key, value in kept.items():
            setattr(zero.Zero, key, value)


def _step_as_configured(self, clip):
    self._wrapped.step()
    return torch.as_tensor(self._wrapped.get_global_grad_norm()).float(), torch.tensor(1.0)


def _not_frozen(player: Player):
    return contextlib.nullcontext(player.engine.local)


FAULTS = {
    "clipping left to DeepSpeed": CASES["penalty"],
    "weights clamped alone": CASES["rmsprop, 3 updates of D, clamp"],
    "D not frozen": CASES["sgd"],
    "D not frozen, gradients kept": CASES["sgd"],
}


def own_group(ranks: Ranks) -> bool:
    """Whether gradients travel in another group than the run's, whose time-out is
    machine.timeout_s.
    """
    return (
        players(Case(), ranks)[0].engine._wrapped.seq_data_parallel_group
        is not torch.distributed.group.WORLD
    )


def refused(optimizer, stage: int, precision: str = "float32") -> str:
    try:
        players(Case(optimizer), start(Case(precision=precision), stage))
    except LaunchError as error:
        return str(error)
    return ""


def main(stage: int) -> None:
    found = {name: run(case, stage) for name, case in CASES.items()}
    found["resumed, adam"] = resumed(Case(ADAM, clip=0.5, accumulation=2), stage)
    found["resumed, first layer of D fixed"] = resumed(Case(ADAM, frozen=True), stage)
    found["resumed, rmsprop and clamp"] = resumed(Case(RMSPROP, clamp=0.1), stage)
    found["groups of DeepSpeed's own"] = float(own_group(start(Case(), stage)))
    found["bf16"] = run(Case(SGD, precision="bf16"), stage)
    found["refused"] = [refused(ADAM, stage, "float64")]
    if stage:
        found["refused"] += [refused(ADAM, stage, "fp16"), refused(torch.optim.LBFGS, stage)]
    else:
        found["fp16"] = as_ddp(Case(SGD, precision="fp16", accumulation=2, clip=0.05, nan=(1,)))
    # At stage 0 DeepSpeed only reduces: its clipping is never reached, and there are no copies of
    # weights.
    faults = {
        name: case for name, case in FAULTS.items() if stage or name.startswith("D not frozen")
    }
    found["faults"] = {name: with_fault(name, case, stage) for name, case in faults.items()}
    ranks = Ranks(Machine(device="cpu"))
    ranks.require_same("what was found", json.dumps(found))
    if ranks.is_main:
        print("FOUND " + json.dumps(found))
    ranks.close()
    exit_process(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
