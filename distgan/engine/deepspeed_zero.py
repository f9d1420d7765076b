"""One network and its optimizer in a DeepSpeed engine: ZeRO stages 0, 1 and 2. The only file that
imports DeepSpeed.

Two of these, one per player, live side by side. Stage 0 differs from DDP in who reduces the
gradients. At stages 1 and 2 each rank holds one stretch of the weights laid end to end (the
optimizer's only parameter, in float32) and steps that; the whole weights are then gathered from
all. DeepSpeed decides there whether a gradient is finite, and waits for the device once per update
to know.
"""

import copy
import importlib.metadata
import logging
import os
import re
from typing import Any

import torch
from torch import nn

from distgan.core.errors import LaunchError
from distgan.distributed.ranks import Ranks
from distgan.engine.ddp import Engine, Log, Loss, MakeOptimizer, poison_gradient_if_nonfinite

_OLDEST = (0, 19)
# Optimizers that treat every element alike, so that a stretch of the weights can be stepped without
# knowing where one of them ends.
_ELEMENTWISE = (torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.SGD)


class Zero(Engine):
    def __init__(
        self, ranks: Ranks, net: nn.Module, optimizer: MakeOptimizer, *, accumulation: int
    ):
        self._stage = ranks.engine_choice.zero_stage
        if ranks.precision == "float64" or ranks.precision == "fp16" and self._stage:
            raise LaunchError(
                f"precision={ranks.precision} under ZeRO {self._stage}: DeepSpeed reduces no"
                " float64, and at stages 1 and 2 knows nothing of our loss scale. Use"
                " precision=float32, tf32 or bf16, or machine.engine=ddp"
            )
        self._deepspeed = _import(ranks)
        super().__init__(ranks, net, optimizer, accumulation=accumulation)

    def _wrap(self) -> nn.Module:
        if self._stage and not isinstance(self.optimizer, _ELEMENTWISE):
            raise LaunchError(
                f"ZeRO {self._stage} cannot share {type(self.optimizer).__name__} among ranks; it"
                f" can share {', '.join(kind.__name__ for kind in _ELEMENTWISE)}."
                " machine.zero_stage=0 or machine.engine=ddp takes any"
            )
        self._numbers = {
            p: i
            for i, p in enumerate(
                p for group in self.optimizer.param_groups for p in group["params"]
            )
        }
        self._members = [
            self._order([p for p in group["params"] if p.requires_grad])
            for group in self.optimizer.param_groups
        ]
        # DeepSpeed sends weights as bytes, which needs the usual order, and lays them end to end in
        # it.
        self.module.to(memory_format=torch.contiguous_format)
        engine, *_ = self._deepspeed.initialize(
            model=_Loss(self.local),
            optimizer=self.optimizer,
            config=self._settings(),
            mpu=_OneGroup(self._deepspeed.comm, self.ranks),
            dist_init_required=False,
        )
        for buffer in self.module.buffers():  # DeepSpeed sends only weights
            self._deepspeed.comm.broadcast(buffer, 0)
        if self._stage:
            self._check_layout()
        elif self.ranks.machine.channels_last:
            self.module.to(memory_format=torch.channels_last)
        return engine

    def _settings(self) -> dict[str, Any]:
        """The tuning keys of the user's file, and what must not be left to DeepSpeed's defaults."""
        tuning = self.ranks.engine_choice.deepspeed
        bucket = (
            self.ranks.machine.bucket_mb * 2**20 // 4
        )  # elements; by default 5e8, which is 2 GB in each of the two engines
        return tuning | {
            "zero_optimization": {
                "reduce_bucket_size": bucket,
                **tuning.get("zero_optimization", {}),
                "stage": self._stage,
            },
            "train_micro_batch_size_per_gpu": 1,  # bookkeeping only: the recipe makes the batches
            "gradient_accumulation_steps": self._accumulation,
            "gradient_clipping": 0.0,  # 1.0 where it is missing; `step` clips
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "timers": {
                "throughput": {"enabled": False}
            },  # which waits for the device in every forward pass
        }

    def __call__(self, *args: torch.Tensor) -> torch.Tensor:
        """Forward pass inside this network's own update.

        It needs no preparation: `backward` has seen to it for the whole loss.
        """
        return self.local(*args)

    # ---- an update
    def begin(self) -> None:
        super().begin()
        if self._stage:
            self._wrapped.optimizer.zero_grad()

    def backward(self, loss_of: Loss, *, last: bool) -> Log:
        """As in `Engine`; at stage 2 the gradient is reduced in every micro-batch, because no rank
        has room for the whole of it.
        """
        self._wrapped.set_gradient_accumulation_boundary(last)
        loss, log = self._wrapped(loss_of)
        mean = poison_gradient_if_nonfinite(loss)
        self._wrapped.backward(
            self._scaler.scale(mean) if self._scaler else mean
        )  # divides by the number of micro-batches
        return {"loss": loss.detach(), **log}

    def step(self, clip: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._stage:
            return super().step(clip)
        self._wrapped.optimizer.clip_grad = clip or 0.0
        self._wrapped.step()
        norm = torch.as_tensor(
            self._wrapped.get_global_grad_norm(), dtype=torch.float32, device=self.ranks.device
        )
        return norm, torch.full_like(norm, float(self._wrapped.was_step_applied()))

    @torch.no_grad()
    def clamp(self, limit: float) -> None:
        """Weights and the float32 copies that the next step starts from.

        Clamping the former alone is undone by it, without a word.
        """
        super().clamp(limit)
        if self._stage:
            for stretch, _ in self._partitions():
                stretch.clamp_(-limit, limit)

    # ---- state
    def optimizer_state(self) -> dict[int, dict[str, Any]]:
        if not self._stage:
            return super().optimizer_state()
        state: dict[int, dict[str, Any]] = {}
        for stretch, members in self._partitions():
            for key, value in self.optimizer.state.get(stretch, {}).items():
                whole = (
                    self._gather_full(value, members)
                    if _by_element(key, value)
                    else [copy.deepcopy(value) for _ in members]
                )
                for p, piece in zip(members, whole, strict=True):
                    state.setdefault(self._numbers[p], {})[key] = piece
        return state

    @torch.no_grad()
    def load(
        self,
        tensors: dict[str, torch.Tensor],
        optimizer_state: dict[int, dict[str, Any]],
        extra: dict[str, Any],
    ) -> None:
        if not self._stage:
            super().load(tensors, optimizer_state, extra)
            return
        self.module.load_state_dict(tensors)
        state = {}
        for number, (stretch, members) in enumerate(self._partitions()):
            stretch.copy_(self._partition_of(members, stretch))
            states = [optimizer_state.get(self._numbers[p], {}) for p in members]
            for key, value in {
                key: value for each in states for key, value in each.items()
            }.items():
                # A weight that never had a gradient has no state, and starts at zero like all.
                whole = (
                    [
                        each.get(key, torch.zeros_like(p))
                        for each, p in zip(states, members, strict=True)
                    ]
                    if _by_element(key, value)
                    else None
                )
                state.setdefault(number, {})[key] = (
                    self._partition_of(whole, stretch) if whole else copy.deepcopy(value)
                )
        self.optimizer.load_state_dict(
            {"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]}
        )

    # ---- stretches
    def _order(self, members: list[nn.Parameter]) -> list[nn.Parameter]:
        """The order in which DeepSpeed lays weights end to end."""
        dealt = self.ranks.engine_choice.deepspeed.get("zero_optimization", {}).get(
            "round_robin_gradients"
        )
        return (
            [
                p
                for rank in range(self.ranks.world_size)
                for p in members[rank :: self.ranks.world_size]
            ]
            if dealt
            else members
        )

    def _partitions(self) -> list[tuple[torch.Tensor, list[nn.Parameter]]]:
        """For each group of the optimizer.

        This rank's stretch of its weights laid end to end, and the weights.
        """
        return [
            (group["params"][0], members)
            for group, members in zip(self.optimizer.param_groups, self._members, strict=True)
        ]

    @torch.no_grad()
    def _gather_full(
        self, stretch: torch.Tensor, members: list[nn.Parameter]
    ) -> list[torch.Tensor]:
        """All ranks' stretches -> whole tensors of the shapes of `members`."""
        row = stretch.new_empty(stretch.numel() * self.ranks.world_size)
        self._deepspeed.comm.all_gather_into_tensor(row, stretch.detach().contiguous())
        sizes = [p.numel() for p in members]
        return [
            piece.view(p.shape).clone()
            for piece, p in zip(row[: sum(sizes)].split(sizes), members, strict=True)
        ]

    def _partition_of(self, pieces: list[torch.Tensor], stretch: torch.Tensor) -> torch.Tensor:
        """Whole tensors -> this rank's stretch of them, the last one filled up with zeros."""
        row = stretch.new_zeros(stretch.numel() * self.ranks.world_size)
        end_to_end = torch.cat([piece.detach().reshape(-1).to(row) for piece in pieces])
        row[: len(end_to_end)] = end_to_end
        return row.chunk(self.ranks.world_size)[self.ranks.rank].clone()

    def _check_layout(self) -> None:
        """LaunchError unless stretches are what the functions above take them for.

        Another DeepSpeed may lay weights otherwise.
        """
        for stretch, members in self._partitions():
            if not all(
                torch.equal(piece, p.detach())
                for piece, p in zip(self._gather_full(stretch, members), members, strict=True)
            ):
                raise LaunchError(
                    f"deepspeed {self._deepspeed.__version__} divides weights among ranks in a way"
                    " that is not known here; machine.zero_stage=0 divides none"
                )


class _Loss(nn.Module):
    """What DeepSpeed takes for the network: its output is the loss.

    DeepSpeed prepares for a backward pass in the outputs of its module, and mistakes a gradient
    penalty's inner pass through one for the update's. With the loss as the one output there is
    nothing to mistake, and the network inside is called freely.
    """

    def __init__(self, inside: nn.Module):
        super().__init__()
        self.local = inside

    def forward(self, loss_of: Loss) -> tuple[torch.Tensor, Log]:
        loss, log = loss_of()
        return loss, {name: value.detach() for name, value in log.items()}


class _OneGroup:
    """The answers to what DeepSpeed asks of a topology: all ranks hold the same network and share
    the group that they already have.

    DeepSpeed would otherwise make a group of its own, whose time-out is not machine.timeout_s.
    """

    def __init__(self, comm: Any, ranks: Ranks):
        self._group, self._ranks = comm.get_world_group(), ranks

    def get_data_parallel_group(self) -> Any:
        return self._group

    def get_data_parallel_rank(self) -> int:
        return self._ranks.rank

    def get_data_parallel_world_size(self) -> int:
        return self._ranks.world_size

    def get_model_parallel_group(self) -> None:
        return None

    def get_model_parallel_rank(self) -> int:
        return 0

    def get_model_parallel_world_size(self) -> int:
        return 1


def _by_element(key: str, value: Any) -> bool:
    """Whether an optimizer keeps this for each element of a weight, as opposed to its count of
    steps.
    """
    return isinstance(value, torch.Tensor) and key != "step"


def _import(ranks: Ranks) -> Any:
    """The deepspeed package, on this run's device, without a compiler and with warnings only."""
    try:
        version = importlib.metadata.version("deepspeed")
    except importlib.metadata.PackageNotFoundError:
        raise LaunchError(
            "machine.engine=deepspeed, but deepspeed is not installed: pip install"
            " 'distgan[deepspeed]'"
        ) from None
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < _OLDEST:
        raise LaunchError(
            f"deepspeed {version} is too old, {'.'.join(map(str, _OLDEST))} is needed: pip install"
            " -U 'distgan[deepspeed]'"
        )
    os.environ["DS_ACCELERATOR"] = ranks.device.type  # else it takes a GPU where there is one
    try:
        import deepspeed
    except Exception as error:  # of any kind: some releases look for a CUDA toolkit at this point
        raise LaunchError(
            f"deepspeed {version} is installed, but cannot be imported: {type(error).__name__}:"
            f" {error}"
        ) from error
    # On a CPU it would compile an operator for inference when it starts; this dictionary tells
    # which ones it may.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(dist_init_required=False)  # in the group that `ranks` has made
    logger = logging.getLogger("DeepSpeed")
    logger.setLevel(logging.WARNING)
    logger.addFilter(_told_elsewhere)
    return deepspeed


def _told_elsewhere(record: logging.LogRecord) -> bool:
    """Drops the warning that a torch optimizer is untested (tests/process/quick/test_deepspeed.py tests those that are
    let in), and of skipped steps (`mishaps` tells them).
    """
    return not any(
        words in record.getMessage() for words in ("untested optimizer", "Skipping step")
    )
