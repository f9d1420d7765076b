"""Update one network in a DeepSpeed engine, ZeRO stages 0, 1 and 2; the only importer of deepspeed.

Each player has an engine of its own. Stage 0 differs from DDP in who reduces the gradients. At
stages 1 and 2 the weights are laid end to end and each rank holds one partition of them in float32:
the optimizer's only parameter, which it steps. The whole weights are then gathered from all ranks.
There DeepSpeed decides whether a gradient is finite, and waits for the device once per update.
"""

import copy
import importlib.metadata
import logging
import os
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from distgan.core.errors import LaunchError
from distgan.distributed.ranks import Ranks
from distgan.engine.ddp import Engine, Log, Loss, MakeOptimizer, poison_gradient_if_nonfinite

_OLDEST = (0, 19)
# Optimizers that treat every element alike, so that a partition can be stepped without knowing
# where
# one weight ends and the next begins.
_ELEMENTWISE = (torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.SGD)


class Zero(Engine):
    """The engine of a run under DeepSpeed."""

    _wrapped: Any  # DeepSpeed's engine

    def __init__(
        self, ranks: Ranks, net: nn.Module, optimizer: MakeOptimizer, *, accumulation: int
    ):
        self._stage = ranks.engine_choice.zero_stage
        if ranks.precision == "float64" or ranks.precision == "fp16" and self._stage:
            raise LaunchError(
                f"precision={ranks.precision} is not supported under ZeRO {self._stage}: DeepSpeed"
                " reduces no float64, and at stages 1 and 2 does not apply this trainer's loss"
                " scale. Use precision=float32, tf32 or bf16, or machine.engine=ddp"
            )
        self._deepspeed = _import(ranks)
        super().__init__(ranks, net, optimizer, accumulation=accumulation)

    def _wrap(self) -> nn.Module:
        if self._stage and not isinstance(self.optimizer, _ELEMENTWISE):
            raise LaunchError(
                f"ZeRO {self._stage} cannot share {type(self.optimizer).__name__} among ranks, only"
                f" {', '.join(kind.__name__ for kind in _ELEMENTWISE)}; use machine.zero_stage=0 or"
                " machine.engine=ddp"
            )
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._numbers = {p: i for i, p in enumerate(parameters)}
        self._members = [
            self._order([p for p in group["params"] if p.requires_grad])
            for group in self.optimizer.param_groups
        ]
        # DeepSpeed sends weights as bytes, which needs the usual order, and lays them end to end in
        # it.
        self.module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
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
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return engine

    def _settings(self) -> dict[str, Any]:
        """Return DeepSpeed's configuration: the user's tuning keys, and what must not be left to
        its defaults.
        """
        tuning = self.ranks.engine_choice.deepspeed
        # In elements. The default, 5e8, would be 2 GB in each of the two engines.
        bucket = self.ranks.machine.bucket_mb * 2**20 // 4
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
            # It would wait for the device in every forward pass.
            "timers": {"throughput": {"enabled": False}},
        }

    def __call__(self, *args: torch.Tensor) -> torch.Tensor:
        """Return the network's output within its own update.

        `backward` has prepared DeepSpeed for the whole loss.
        """
        return self.local(*args)

    # ---- an update
    def begin(self) -> None:
        super().begin()
        if self._stage:
            self._wrapped.optimizer.zero_grad()

    def backward(self, loss_of: Loss, *, last: bool) -> Log:
        """As in `Engine`, but at stage 2 the gradient is reduced in every micro-batch, since no
        rank keeps all of it.
        """
        self._wrapped.set_gradient_accumulation_boundary(last)
        loss, log = self._wrapped(loss_of)
        mean = poison_gradient_if_nonfinite(loss)
        # DeepSpeed divides by the number of micro-batches.
        self._wrapped.backward(self._scaler.scale(mean) if self._scaler else mean)
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
        """Clamp the weights and the float32 partitions, from which the next step restores them."""
        super().clamp(limit)
        if self._stage:
            for partition, _ in self._partitions():
                partition.clamp_(-limit, limit)

    # ---- state
    def optimizer_state(self) -> dict[int, dict[str, Any]]:
        if not self._stage:
            return super().optimizer_state()
        state: dict[int, dict[str, Any]] = {}
        for partition, members in self._partitions():
            for key, value in self.optimizer.state.get(partition, {}).items():
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
        state: dict[int, dict[str, Any]] = {}
        for number, (partition, members) in enumerate(self._partitions()):
            partition.copy_(self._partition_of(members, partition))
            states = [optimizer_state.get(self._numbers[p], {}) for p in members]
            entries = {key: value for each in states for key, value in each.items()}
            for key, value in entries.items():
                if _by_element(key, value):
                    # A weight that never had a gradient has no state, and starts at zero like all.
                    pairs = zip(states, members, strict=True)
                    whole = [each.get(key, torch.zeros_like(p)) for each, p in pairs]
                    value = self._partition_of(whole, partition)
                else:
                    value = copy.deepcopy(value)
                state.setdefault(number, {})[key] = value
        self.optimizer.load_state_dict(
            {"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]}
        )

    # ---- partitions
    def _order(self, members: list[nn.Parameter]) -> list[nn.Parameter]:
        """Return weights in the order in which DeepSpeed lays them end to end."""
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
        """Return for each group of the optimizer (this rank's partition, all its weights)."""
        return [
            (group["params"][0], members)
            for group, members in zip(self.optimizer.param_groups, self._members, strict=True)
        ]

    @torch.no_grad()
    def _gather_full(
        self, partition: torch.Tensor, members: list[nn.Parameter]
    ) -> list[torch.Tensor]:
        """Gather all ranks' partitions; return whole tensors of the shapes of `members`."""
        row = partition.new_empty(partition.numel() * self.ranks.world_size)
        self._deepspeed.comm.all_gather_into_tensor(row, partition.detach().contiguous())
        sizes = [p.numel() for p in members]
        return [
            piece.view(p.shape).clone()
            for piece, p in zip(row[: sum(sizes)].split(sizes), members, strict=True)
        ]

    def _partition_of(
        self, pieces: Sequence[torch.Tensor], partition: torch.Tensor
    ) -> torch.Tensor:
        """Return this rank's partition of whole tensors; the last rank's ends in zeros."""
        row = partition.new_zeros(partition.numel() * self.ranks.world_size)
        end_to_end = torch.cat([piece.detach().reshape(-1).to(row) for piece in pieces])
        row[: len(end_to_end)] = end_to_end
        return row.chunk(self.ranks.world_size)[self.ranks.rank].clone()

    def _check_layout(self) -> None:
        """Raise LaunchError if this version of DeepSpeed divides weights in another way."""
        for partition, members in self._partitions():
            if not all(
                torch.equal(piece, p.detach())
                for piece, p in zip(self._gather_full(partition, members), members, strict=True)
            ):
                raise LaunchError(
                    f"deepspeed {self._deepspeed.__version__} divides weights among ranks in an"
                    " unknown way; use machine.zero_stage=0, which divides none"
                )


class _Loss(nn.Module):
    """The module given to DeepSpeed: its output is the loss.

    DeepSpeed prepares the backward pass at the outputs of its module, and takes a gradient
    penalty's inner backward pass through one for the update's. The loss is the only output here,
    so the network itself can be called freely.
    """

    def __init__(self, local: nn.Module):
        super().__init__()
        self.local = local

    def forward(self, loss_of: Loss) -> tuple[torch.Tensor, Log]:
        loss, log = loss_of()
        return loss, {name: value.detach() for name, value in log.items()}


class _OneGroup:
    """The topology for DeepSpeed: all ranks hold the same network and use their present group.

    DeepSpeed would otherwise make a group whose time-out is not machine.timeout_s.
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
    """Return true if an optimizer keeps this value for each element of a weight (not `step`)."""
    return isinstance(value, torch.Tensor) and key != "step"


def _import(ranks: Ranks) -> Any:
    """Return the deepspeed package, set to this run's device, no compiler and warnings only."""
    try:
        version = importlib.metadata.version("deepspeed")
    except importlib.metadata.PackageNotFoundError:
        raise LaunchError(
            "machine.engine=deepspeed, but deepspeed is not installed: pip install"
            " 'distgan[deepspeed]'"
        ) from None
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < _OLDEST:
        raise LaunchError(
            f"deepspeed {version} is older than {'.'.join(map(str, _OLDEST))}: pip install -U"
            " 'distgan[deepspeed]'"
        )
    os.environ["DS_ACCELERATOR"] = ranks.device.type  # or it takes a GPU where there is one
    try:
        import deepspeed
    except Exception as error:  # any kind: some releases look for a CUDA toolkit at import
        raise LaunchError(
            f"deepspeed {version} is installed, but cannot be imported: {type(error).__name__}:"
            f" {error}"
        ) from error
    # The operators that it may compile: on a CPU it would compile one for inference at once.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(dist_init_required=False)  # in the group that `ranks` has made
    logger = logging.getLogger("DeepSpeed")
    logger.setLevel(logging.WARNING)
    logger.addFilter(_is_news)
    return deepspeed


def _is_news(record: logging.LogRecord) -> bool:
    """Drop the warnings of untested optimizers, which tests/process/quick/test_deepspeed.py tests,
    and of skipped steps, which training/nonfinite.py reports.
    """
    return not any(
        words in record.getMessage() for words in ("untested optimizer", "Skipping step")
    )
