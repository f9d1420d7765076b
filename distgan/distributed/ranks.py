"""The processes of a run: collectives, decisions that all ranks take alike, work of rank 0 alone.

With process_group.py the only file that imports accelerate and torch.distributed. In one process
everything works too, and communicates nothing.
"""

import contextlib
import datetime
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn

from distgan.config.sections import Machine
from distgan.core import errors, interrupts, watchdog
from distgan.core.errors import DistganError, LaunchError, RunError
from distgan.core.files import disk_faults
from distgan.distributed import process_group
from distgan.distributed.environment import (
    EngineChoice,
    check_environment,
    process_count,
    require_gpus,
    resolve_engine,
    settled_variables,
)

# Rank 0 may validate or evaluate for hours while the others wait; if it dies they notice at once.
_WAIT = datetime.timedelta(hours=12)
_HERE = Machine()
# Error texts of gloo, NCCL and the store that mean a peer is gone.
_LOST = re.compile(
    r"(closed|reset) by (remote )?peer|timed? ?out|timeout|broken pipe|connection (refused|was"
    r" likely closed)|socket|NCCL|remote process",
    re.IGNORECASE,
)


class Ranks:
    """This process's place among the processes of a run, and its way to the others."""

    wait_seconds = 0.0  # for which this process has waited for others within steps

    def __init__(self, machine: Machine = _HERE, precision: str = "float32"):
        if machine.device == "cuda" and not torch.cuda.is_available():
            raise LaunchError(
                "machine.device=cuda, but torch sees no CUDA device here; use machine.device=auto,"
                " which falls back to the CPU"
            )
        require_gpus(machine, torch.cuda.device_count())
        on_cpu = machine.device == "cpu" or not torch.cuda.is_available()
        check_environment()
        source, count = process_count()
        self.engine_choice = resolve_engine(machine, precision)
        self._compute(machine, precision)
        # Buffers are not broadcast before each forward pass: otherwise two forwards of D before one
        # backward fail, and a forward on rank 0 alone waits for ever (pytorch #22095, #54059). They
        # are equal on all ranks by construction.
        ddp = DistributedDataParallelKwargs(
            broadcast_buffers=False, bucket_cap_mb=machine.bucket_mb, gradient_as_bucket_view=True
        )
        limit = datetime.timedelta(seconds=machine.timeout_s)
        self._before = process_group.existing()
        with interrupts.ending_with_launcher(), settled_variables():
            if not any(self._before):
                process_group.begin_again(on_cpu, limit)
            # Without cpu=True Accelerate finds no backend on a machine without a GPU, and each
            # process trains alone.
            handlers = [ddp, InitProcessGroupKwargs(timeout=limit)]
            self._accelerator = process_group.accelerator(on_cpu, handlers)
            self.rank, self.world_size = (
                self._accelerator.process_index,
                self._accelerator.num_processes,
            )
            self.device, self.is_main = self._accelerator.device, self.rank == 0
            if count != self.world_size:
                raise LaunchError(
                    f"the launcher started {count} processes ({source}={count}), but this process"
                    f" sees {self.world_size}: each would write as rank 0"
                )
            self._control = self._wait = None
            if self.world_size > 1:
                # Flags and messages are sent by gloo, which launches no kernel and does not
                # synchronise the device.
                self._control = process_group.on_cpus(limit)
                self._wait = process_group.on_cpus(_WAIT)

    def _compute(self, machine: Machine, precision: str) -> None:
        """Set `dtype`, of weights and losses, and `autocast`, of the networks' arithmetic or
        None.
        """
        self.machine, self.precision = machine, precision
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        # cuDNN would otherwise round convolutions to TF32 (10 bits) under the name of float32.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = (
            precision == "tf32"
        )

    def __deepcopy__(self, memo):
        """Return self: a copied network (an average) belongs to the same processes."""
        return self

    # ---- networks
    def wrap(self, net: nn.Module) -> nn.Module:
        """Move `net` to the device; with several ranks, give all of them rank 0's weights and
        average gradients in every backward pass.
        """
        return self._accelerator.prepare_model(net)

    def no_sync(self, net: Any) -> contextlib.AbstractContextManager[None]:
        """Return a context without gradient averaging, for all micro-batches of an update but the
        last. It must enclose the forward pass too.
        """
        return net.no_sync() if self.world_size > 1 else contextlib.nullcontext()

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.wait_seconds += time.perf_counter() - began

    def backward(self, loss: torch.Tensor) -> None:
        """Call `loss.backward()`, counting DDP's wait for other ranks' gradients as waiting."""
        if self.world_size == 1:
            return loss.backward()
        # Callbacks run in the order in which they are queued, and DDP queues its own, which waits,
        # with the last gradient: the time before it is that of this rank's own work.
        queue, ready = torch.autograd.Variable._execution_engine.queue_callback, []
        loss.register_hook(lambda _: queue(lambda: ready.append(time.perf_counter())))
        loss.backward()
        self.wait_seconds += time.perf_counter() - ready[0]

    # ---- tensors
    def all_reduce_sum(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum over ranks, without gradient; `x` itself may be overwritten."""
        if self.world_size > 1:
            with self._waiting():
                dist.all_reduce(x)
        return x

    def all_reduce_sum_cpu(self, x: torch.Tensor) -> torch.Tensor:
        """Sum a CPU tensor over ranks in place, whatever the run's device.

        Waits hours if need be.
        """
        if self.world_size > 1:
            dist.all_reduce(x, group=self._wait)
        return x

    def broadcast_cpu(self, x: torch.Tensor) -> torch.Tensor:
        """Return rank 0's CPU tensor, received in `x` on the others. Waits hours if need be."""
        x = x.contiguous()
        if self.world_size > 1:
            dist.broadcast(x, 0, group=self._wait)
        return x

    def batch_norm(self, x, mean, var, weight, bias, eps: float) -> torch.Tensor:
        """Normalise over all samples of all ranks, on GPUs; `mean` and `var` receive the batch's
        statistics. Not differentiable twice.
        """
        from torch.nn.modules._functions import SyncBatchNorm

        return SyncBatchNorm.apply(
            x.contiguous(), weight, bias, mean, var, eps, 1.0, dist.group.WORLD, self.world_size
        )

    def all_reduce_mean(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean over ranks, without gradient."""
        return self.all_reduce_mean_async(x)()

    def all_reduce_mean_async(self, x: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Start to take the mean; return a function that waits for it."""
        if self.world_size == 1:
            return lambda: x
        total = x.detach().clone()
        work = dist.all_reduce(total, async_op=True)

        def result():
            with self._waiting():
                work.wait()
            return total / self.world_size

        return result

    def all_gather_objects(self, value: Any, patient: bool = False) -> list[Any]:
        """Return every rank's value, a plain object, by rank.

        `patient`: wait hours for the slowest rank, not machine.timeout_s.
        """
        box = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(box, value, group=self._wait if patient else self._control)
        return box

    def gather(self, index: np.ndarray, rows: torch.Tensor, total: int) -> torch.Tensor:
        """Gather rows by their numbers: rank 0 gets the rows 0..total-1 in order, others none.

        index: [n] int64 of this rank's rows [n, d]; n may differ among ranks and be 0. Raises
        RuntimeError if a number is missing or occurs twice.
        """
        parts = [(index, rows.cpu().numpy())]
        if self.world_size > 1:
            box: list[Any] | None = [None] * self.world_size if self.is_main else None
            dist.gather_object(parts[0], box, group=self._control)
            parts = box or []
        if not self.is_main:
            return torch.empty(0)
        numbers = np.concatenate([n for n, _ in parts])
        if not np.array_equal(np.sort(numbers), np.arange(total)):
            unique, counts = np.unique(numbers, return_counts=True)
            raise RuntimeError(
                f"{len(numbers)} rows gathered for {total}: missing"
                f" {np.setdiff1d(np.arange(total), unique)[:5]}, twice {unique[counts > 1][:5]}"
            )
        return torch.from_numpy(
            np.concatenate([r for n, r in parts if len(n)])[np.argsort(numbers)]
        )

    # ---- decisions
    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether it is true on any rank."""
        return self.any_async(*flags)()

    def any_async(self, *flags: bool) -> Callable[[], tuple[bool, ...]]:
        """Start `any`; return a function that waits for its result."""
        if self.world_size == 1:
            return lambda: flags
        box = torch.tensor(flags, dtype=torch.uint8)
        work = dist.all_reduce(box, dist.ReduceOp.MAX, group=self._control, async_op=True)

        def result():
            work.wait()
            return tuple(bool(flag) for flag in box.tolist())

        return result

    def on_rank_zero(self, work: Callable[[], Any]) -> Any:
        """Call `work()` on rank 0; every rank returns its result, or raises what it raised.

        `work` must start no collective. The others may wait for hours, and notice at once if rank 0
        dies.
        """
        if self.world_size == 1:
            with disk_faults():
                return work()
        box: list[Any] = [None, None, None]
        if self.is_main:
            try:
                with disk_faults():
                    box[0] = work()
            except Exception as error:
                dist.broadcast_object_list(
                    [None, type(error).__name__, str(error)], src=0, group=self._wait
                )
                raise
        with contextlib.nullcontext() if self.is_main else watchdog.waiting():
            dist.broadcast_object_list(box, src=0, group=self._wait)
        if box[1] is not None:
            kind: Any = getattr(errors, box[1], RuntimeError)
            reason = kind(box[2] if kind is not RuntimeError else f"rank 0: {box[1]}: {box[2]}")
            reason.everywhere = True
            raise reason
        return box[0]

    def on_all_ranks(self, work: Callable[[], Any]) -> Any:
        """Call `work()` on every rank and return its result.

        If it raises a DistganError on any rank, all ranks raise that of the first such rank.
        """
        result, fault = None, None
        try:
            result = work()
        except DistganError as error:
            fault = error
        for rank, other in enumerate(self.all_gather_objects(fault, patient=True)):
            if other is not None:
                reason = type(other)(f"rank {rank}: {other}" if rank else str(other))
                reason.everywhere = True
                raise reason
        return result

    def require_same(self, what: str, value: str) -> None:
        """Raise LaunchError unless every rank holds an equal value."""
        box = self.all_gather_objects(value)
        if len(set(box)) > 1:
            error = LaunchError(
                f"{what} differs among ranks: "
                + ", ".join(f"rank {r}: {v}" for r, v in enumerate(box))
            )
            error.everywhere = True
            raise error

    def require_equal_state(self, when: str, sums: dict[str, int]) -> None:
        """Raise RunError, on all ranks, unless every rank holds equal values.

        The message names the first rank that differs from rank 0, and in what.
        """
        first, *others = self.all_gather_objects(sums)
        for rank, values in enumerate(others, 1):
            names = first.keys() | values.keys()
            names = sorted(name for name in names if first.get(name) != values.get(name))
            if not names:
                continue
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            error = RunError(
                f"{when} rank {rank} holds other values than rank 0 in"
                f" {', '.join(names[:3])}{more}; nothing was saved, the last good checkpoint is"
                " kept. Either a machine computes wrongly, or ranks run two versions of the"
                " program"
            )
            error.everywhere = True
            raise error

    @contextlib.contextmanager
    def translating_peer_loss(self, path: str):
        """Raise LaunchError in place of an error of the backend that means a process is gone, or
        does not answer; `path` is the run folder.
        """
        try:
            yield
        except RuntimeError as error:
            if (
                self.world_size == 1
                or isinstance(error, DistganError)
                or not _LOST.search(str(error))
            ):
                raise
            raise LaunchError(
                "another process of this run has gone, or does not answer"
                f" ({str(error).splitlines()[0][:200]}). Its last output says why; if it hung,"
                f" {path}/attempts/*/stacks-rank*.txt says where. The same command continues from"
                " the last checkpoint"
            ) from error

    def close(self) -> None:
        """Leave the process group, unless the caller's script has made it; no collective may
        follow.
        """
        if self.world_size > 1:
            dist.barrier(group=self._wait)
        process_group.leave(self._before)


class SingleProcess(Ranks):
    """One process of a run as if it were alone, with the same types on the same device: the
    reference of the self-check.
    """

    def __init__(self, ranks: Ranks):
        self._alone(ranks.machine, ranks.precision, ranks.device)

    @classmethod
    def on(cls, device: str, precision: str) -> "SingleProcess":
        """Return this process alone, without a process group, also where there are others."""
        ranks = cls.__new__(cls)
        ranks._alone(_HERE, precision, torch.device(device))
        return ranks

    def _alone(self, machine: Machine, precision: str, device: torch.device) -> None:
        plain = {"compile": None, "channels_last": False, "sync_batchnorm": False}
        self._compute(machine.model_copy(update={"accumulation": 1, **plain}), precision)
        self.engine_choice, self._before = EngineChoice(), (True, True)
        self.rank, self.world_size, self.is_main, self.device = 0, 1, True, device

    def wrap(self, net: nn.Module) -> nn.Module:
        return net


def exit_process(code: int) -> None:
    """End the process; ranks of a group without the interpreter's shutdown, in which gloo's threads
    sometimes abort (4 of 100).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if process_count()[1] > 1:
        os._exit(code)
    sys.exit(code)
