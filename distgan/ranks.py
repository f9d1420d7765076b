"""The processes of a run. No other file imports accelerate or torch.distributed: everything here also works, and does nothing, in one process."""

import contextlib
import datetime
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn

from distgan import errors
from distgan.errors import DistganError, LaunchError

# How many processes each launcher says it started, most specific first.
_COUNTS = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
# Rank 0 may validate or evaluate for hours; this bounds only how long the others wait for it. A rank 0 that dies is noticed at once.
_WAIT = datetime.timedelta(hours=12)


def started() -> tuple[str, int]:
    """The variable in which a launcher left its process count, and the count; ("", 1) when started without one."""
    for name in _COUNTS:
        if os.environ.get(name, "").isdigit():
            return name, int(os.environ[name])
    return "", 1


def _refuse_what_is_not_built() -> None:
    """An Accelerate configuration can ask for an engine or precision; taking no notice would train something else than was asked for."""
    asked = {"ACCELERATE_MIXED_PRECISION": "mixed_precision", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_FSDP": "FSDP",
             "ACCELERATE_DYNAMO_BACKEND": "dynamo_backend"}
    found = [f"{meaning} ({name}={os.environ[name]})" for name, meaning in asked.items()
             if os.environ.get(name, "no").lower() not in ("no", "false", "")]
    if found:
        raise LaunchError(f"accelerate was configured for {', '.join(found)}; this version trains in DDP with precision=float32 or float64. "
                          "Use `accelerate launch --config_file configs/accelerate.yaml`")


def _check_environment() -> None:
    """LaunchError where the variables of a launcher are there in part, or do not fit each other."""
    env = os.environ
    source, count = started()
    if count > 1 and source != "WORLD_SIZE":
        raise LaunchError(f"{source}={count}: {count} processes were started, but without RANK and WORLD_SIZE each would train alone as rank 0. "
                          "Start them with torchrun or accelerate launch")
    numbers = {name: env[name] for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT") if name in env}
    wrong = [f"{name}={value!r} is no number" for name, value in numbers.items() if not value.isdigit()]
    if count > 1:
        wrong += [f"{name} is missing" for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if not env.get(name)]
    if not wrong and int(env.get("RANK", 0)) >= count:
        wrong = [f"RANK={env['RANK']}, allowed are 0 to {count - 1} with WORLD_SIZE={env.get('WORLD_SIZE', 'missing')}"]
    if wrong:
        raise LaunchError(f"the environment names a process group that cannot be joined: {'; '.join(wrong)}. "
                          "torchrun and accelerate launch set these variables; unset them to train in one process")


class Ranks:
    """What a process may ask of, and do with, the others."""

    def __init__(self, device: str = "auto", timeout_s: int = 1800):
        if device == "cuda" and not torch.cuda.is_available():
            raise LaunchError("machine.device=cuda, but torch sees no CUDA device here; machine.device=auto takes the CPU then")
        on_cpu = device == "cpu" or not torch.cuda.is_available()
        _check_environment()
        source, count = started()
        _refuse_what_is_not_built()
        # cuDNN would otherwise round convolutions to TF32 (10 bits) under the name of float32.
        torch.backends.cudnn.allow_tf32 = False
        # Buffers are not broadcast before each forward pass: with it, two forwards of D before one backward fail, and a forward on
        # rank 0 alone waits for the others for ever (pytorch #22095, #54059). Ours are equal on all ranks by construction.
        ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
        group = InitProcessGroupKwargs(timeout=datetime.timedelta(seconds=timeout_s))
        # Without cpu=True Accelerate finds no backend on a machine without a GPU, and each process believes to be alone.
        self._accelerator = Accelerator(cpu=on_cpu, mixed_precision="no", kwargs_handlers=[ddp, group])
        self.rank, self.size = self._accelerator.process_index, self._accelerator.num_processes
        self.device, self.first = self._accelerator.device, self.rank == 0
        if count != self.size:
            raise LaunchError(f"the launcher started {count} processes ({source}={count}), but this one sees {self.size}: "
                              "each would write as rank 0")
        self._control = self._wait = None
        if self.size > 1:
            # Flags and messages travel over gloo: no kernel is launched and the device is not synchronised for them.
            self._control = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=timeout_s))
            self._wait = dist.new_group(backend="gloo", timeout=_WAIT)

    def __deepcopy__(self, memo):
        """A copied network (an average) still belongs to the same processes."""
        return self

    # ---- networks
    def wrap(self, net: nn.Module) -> nn.Module:
        """Move to the device; with several ranks, copy rank 0's weights to all and average gradients in every backward pass."""
        return self._accelerator.prepare_model(net)

    def bare(self, net: nn.Module) -> nn.Module:
        """The network inside `wrap`: calling it starts no collective."""
        return self._accelerator.unwrap_model(net)

    def no_sync(self, net: nn.Module):
        """No gradient averaging inside: for all micro-batches of an update but the last. Must hold the forward pass too."""
        return net.no_sync() if self.size > 1 else contextlib.nullcontext()

    # ---- tensors
    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over ranks; differentiable, with the gradient summed over ranks as well."""
        return _Sum.apply(x) if self.size > 1 else x

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """Mean over ranks, without gradient."""
        if self.size == 1:
            return x
        total = x.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def gather(self, index: np.ndarray, rows: torch.Tensor, total: int) -> torch.Tensor | None:
        """Rows numbered by `index` from all ranks -> on rank 0 the rows 0..total-1 in order, elsewhere None.

        index: [n] int64, unequal n allowed, also 0; rows: [n, d]. Raises RuntimeError if a number is missing or stands twice.
        """
        parts = [(index, rows.cpu().numpy())]
        if self.size > 1:
            box: list[Any] | None = [None] * self.size if self.first else None
            dist.gather_object(parts[0], box, group=self._control)
            parts = box or []
        if not self.first:
            return None
        numbers = np.concatenate([n for n, _ in parts])
        if not np.array_equal(np.sort(numbers), np.arange(total)):
            unique, counts = np.unique(numbers, return_counts=True)
            raise RuntimeError(f"{len(numbers)} rows gathered for {total}: missing {np.setdiff1d(np.arange(total), unique)[:5]}, "
                               f"twice {unique[counts > 1][:5]}")
        return torch.from_numpy(np.concatenate([r for n, r in parts if len(n)])[np.argsort(numbers)])

    # ---- decisions
    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, true everywhere if it is true on any rank."""
        if self.size == 1:
            return flags
        box = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(box, dist.ReduceOp.MAX, group=self._control)
        return tuple(bool(flag) for flag in box.tolist())

    def alone(self, work: Callable[[], Any]) -> Any:
        """Rank 0 calls `work()`; every rank gets its result, or raises if it raised. `work` must start no collective.

        The others wait on a group of their own, whose time-out is not the training's, and see at once if rank 0 dies.
        """
        if self.size == 1:
            return work()
        box: list[Any] = [None, None, None]
        if self.first:
            try:
                box[0] = work()
            except Exception as error:
                dist.broadcast_object_list([None, type(error).__name__, str(error)], src=0, group=self._wait)
                raise
        dist.broadcast_object_list(box, src=0, group=self._wait)
        if box[1] is not None:
            kind = getattr(errors, box[1], RuntimeError)
            error = kind(box[2] if kind is not RuntimeError else f"rank 0: {box[1]}: {box[2]}")
            error.everywhere = True
            raise error
        return box[0]

    def together(self, work: Callable[[], Any]) -> Any:
        """Every rank calls `work()` and gets its result; if any meets an error for the user, all raise that of the first such rank."""
        result, fault = None, None
        try:
            result = work()
        except DistganError as error:
            fault = error
        faults: list[Any] = [fault]
        if self.size > 1:
            faults = [None] * self.size
            dist.all_gather_object(faults, fault, group=self._wait)
        for rank, error in enumerate(faults):
            if error is not None:
                error = type(error)(f"rank {rank}: {error}" if rank else str(error))
                error.everywhere = True
                raise error
        return result

    def same(self, what: str, value: str) -> None:
        """Raise LaunchError unless every rank holds an equal value."""
        if self.size > 1:
            box: list[Any] = [None] * self.size
            dist.all_gather_object(box, value, group=self._control)
            if len(set(box)) > 1:
                error = LaunchError(f"{what} differs among ranks: " + ", ".join(f"rank {r}: {v}" for r, v in enumerate(box)))
                error.everywhere = True
                raise error

    def close(self) -> None:
        """Leave the group; nothing may be asked of the others afterwards."""
        if self.size > 1:
            dist.barrier(group=self._wait)
            dist.destroy_process_group()


def leave(code: int) -> None:
    """End the process. Gloo's threads sometimes abort an interpreter that winds down (4 of 100 runs), so ranks of a group leave directly."""
    sys.stdout.flush()
    sys.stderr.flush()
    if started()[1] > 1:
        os._exit(code)
    sys.exit(code)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad):
        total = grad.clone()
        dist.all_reduce(total)
        return total
