"""The processes of a run. No other file imports accelerate or torch.distributed: everything here
also works, and does nothing, in one process.
"""

import contextlib
import dataclasses
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
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn

from distgan.config.sections import Machine
from distgan.core import errors, watchdog
from distgan.core.errors import DistganError, LaunchError, RunError
from distgan.distributed.environment import check_environment, process_count, resolve_engine

# Rank 0 may validate or evaluate for hours; this bounds only how long the others wait for it. A
# rank 0 that dies is noticed at once.
_WAIT = datetime.timedelta(hours=12)
_HERE = Machine()
# How gloo, NCCL and the store say so.
_LOST = re.compile(
    r"(closed|reset) by (remote )?peer|timed? ?out|timeout|broken pipe|connection (refused|was"
    r" likely closed)|socket|NCCL|remote process",
    re.IGNORECASE,
)


class Ranks:
    """What a process may ask of, and do with, the others."""

    # seconds for which this process has stood still in a step until the others had come as far
    wait_seconds = 0.0

    def __init__(self, machine: Machine = _HERE, precision: str = "float32"):
        if machine.device == "cuda" and not torch.cuda.is_available():
            raise LaunchError(
                "machine.device=cuda, but torch sees no CUDA device here; machine.device=auto takes"
                " the CPU then"
            )
        on_cpu = machine.device == "cpu" or not torch.cuda.is_available()
        check_environment()
        source, count = process_count()
        self.engine_choice = resolve_engine(machine, precision)
        self._compute(machine, precision)
        # Buffers are not broadcast before each forward pass: with it, two forwards of D before one
        # backward fail, and a forward on rank 0 alone waits for the others for ever (pytorch
        # #22095, #54059). Ours are equal on all ranks by construction.
        ddp = DistributedDataParallelKwargs(
            broadcast_buffers=False, bucket_cap_mb=machine.bucket_mb, gradient_as_bucket_view=True
        )
        group = InitProcessGroupKwargs(timeout=datetime.timedelta(seconds=machine.timeout_s))
        _begin_again(on_cpu, datetime.timedelta(seconds=machine.timeout_s))
        # Without cpu=True Accelerate finds no backend on a machine without a GPU, and each process
        # believes to be alone.
        self._accelerator = Accelerator(
            cpu=on_cpu, mixed_precision="no", kwargs_handlers=[ddp, group]
        )
        self.rank, self.world_size = (
            self._accelerator.process_index,
            self._accelerator.num_processes,
        )
        self.device, self.is_main = self._accelerator.device, self.rank == 0
        if count != self.world_size:
            raise LaunchError(
                f"the launcher started {count} processes ({source}={count}), but this one sees"
                f" {self.world_size}: each would write as rank 0"
            )
        self._control = self._wait = None
        if self.world_size > 1:
            # Flags and messages travel over gloo: no kernel is launched and the device is not
            # synchronised for them.
            self._control = dist.new_group(
                backend="gloo", timeout=datetime.timedelta(seconds=machine.timeout_s)
            )
            self._wait = dist.new_group(backend="gloo", timeout=_WAIT)

    def _compute(self, machine: Machine, precision: str) -> None:
        """The types of numbers: `dtype` of weights and losses, `autocast` of the networks'
        arithmetic, or None.
        """
        self.machine, self.precision = machine, precision
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        # cuDNN would otherwise round convolutions to TF32 (10 bits) under the name of float32.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = (
            precision == "tf32"
        )

    def __deepcopy__(self, memo):
        """A copied network (an average) still belongs to the same processes."""
        return self

    # ---- networks
    def wrap(self, net: nn.Module) -> nn.Module:
        """Move to the device; with several ranks, copy rank 0's weights to all and average
        gradients in every backward pass.
        """
        return self._accelerator.prepare_model(net)

    def no_sync(self, net: nn.Module):
        """No gradient averaging inside.

        For all micro-batches of an update but the last. Must hold the forward pass too.
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
        """`loss.backward()`; DDP's wait for the others' gradients, once this rank's own are all
        there, is counted as waiting.
        """
        if self.world_size == 1:
            return loss.backward()
        # Called in the order in which they are queued, and DDP queues its own, which waits, with
        # the last gradient.
        queue, ready = torch.autograd.Variable._execution_engine.queue_callback, []
        loss.register_hook(lambda _: queue(lambda: ready.append(time.perf_counter())))
        loss.backward()
        self.wait_seconds += time.perf_counter() - ready[0]

    # ---- tensors
    def all_reduce_sum(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, without gradient; `x` itself may be written over."""
        if self.world_size > 1:
            with self._waiting():
                dist.all_reduce(x)
        return x

    def all_reduce_sum_cpu(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over ranks of a tensor on the CPU, whatever device the run is on, and however long
        one rank works before it comes here; in place.
        """
        if self.world_size > 1:
            dist.all_reduce(x, group=self._wait)
        return x

    def batch_norm(self, x, mean, var, weight, bias, eps: float) -> torch.Tensor:
        """Batch normalisation over all samples of all ranks, on GPUs.

        `mean` and `var` receive this batch's own. Not differentiable twice.
        """
        from torch.nn.modules._functions import SyncBatchNorm

        return SyncBatchNorm.apply(
            x.contiguous(), weight, bias, mean, var, eps, 1.0, dist.group.WORLD, self.world_size
        )

    def all_reduce_mean(self, x: torch.Tensor) -> torch.Tensor:
        """Mean over ranks, without gradient."""
        return self.all_reduce_mean_async(x)()

    def all_reduce_mean_async(self, x: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Begin to take the mean; the function that is returned waits for it."""
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
        """Every rank's value, a plain object, in the order of their numbers.

        `patient`: however long one rank works before it comes here.
        """
        box = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(box, value, group=self._wait if patient else self._control)
        return box

    def gather(self, index: np.ndarray, rows: torch.Tensor, total: int) -> torch.Tensor | None:
        """Rows numbered by `index` from all ranks -> on rank 0 the rows 0..total-1 in order,
        elsewhere None.

        index: [n] int64, unequal n allowed, also 0; rows: [n, d]. Raises RuntimeError if a number
        is missing or stands twice.
        """
        parts = [(index, rows.cpu().numpy())]
        if self.world_size > 1:
            box: list[Any] | None = [None] * self.world_size if self.is_main else None
            dist.gather_object(parts[0], box, group=self._control)
            parts = box or []
        if not self.is_main:
            return None
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
        """Each flag, true everywhere if it is true on any rank."""
        return self.any_async(*flags)()

    def any_async(self, *flags: bool) -> Callable[[], tuple[bool, ...]]:
        """Begin to ask; the function that is returned waits for the answer."""
        if self.world_size == 1:
            return lambda: flags
        box = torch.tensor(flags, dtype=torch.uint8)
        work = dist.all_reduce(box, dist.ReduceOp.MAX, group=self._control, async_op=True)

        def result():
            work.wait()
            return tuple(bool(flag) for flag in box.tolist())

        return result

    def on_rank_zero(self, work: Callable[[], Any]) -> Any:
        """Rank 0 calls `work()`; every rank gets its result, or raises if it raised. `work` must
        start no collective.

        The others wait on a group of their own, whose time-out is not the training's, and see at
        once if rank 0 dies.
        """
        if self.world_size == 1:
            return work()
        box: list[Any] = [None, None, None]
        if self.is_main:
            try:
                box[0] = work()
            except Exception as error:
                dist.broadcast_object_list(
                    [None, type(error).__name__, str(error)], src=0, group=self._wait
                )
                raise
        with contextlib.nullcontext() if self.is_main else watchdog.waiting():
            dist.broadcast_object_list(box, src=0, group=self._wait)
        if box[1] is not None:
            kind = getattr(errors, box[1], RuntimeError)
            error = kind(box[2] if kind is not RuntimeError else f"rank 0: {box[1]}: {box[2]}")
            error.everywhere = True
            raise error
        return box[0]

    def on_all_ranks(self, work: Callable[[], Any]) -> Any:
        """Every rank calls `work()` and gets its result.

        If any meets an error for the user, all raise that of the first such rank.
        """
        result, fault = None, None
        try:
            result = work()
        except DistganError as error:
            fault = error
        for rank, error in enumerate(self.all_gather_objects(fault, patient=True)):
            if error is not None:
                error = type(error)(f"rank {rank}: {error}" if rank else str(error))
                error.everywhere = True
                raise error
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

        It names the ranks and the first names that differ from rank 0's.
        """
        box = self.all_gather_objects(sums)
        apart = {
            rank: [
                name
                for name in box[0].keys() | theirs.keys()
                if box[0].get(name) != theirs.get(name)
            ]
            for rank, theirs in enumerate(box)
        }
        if any(apart.values()):
            rank, names = next((rank, sorted(names)) for rank, names in apart.items() if names)
            error = RunError(
                f"{when} rank {rank} holds other values than rank 0 in {', '.join(names[:3])}"
                + (f" and {len(names) - 3} more" if len(names) > 3 else "")
                + "; nothing was saved, the last good checkpoint is kept. A machine that computes"
                " wrongly, or two versions of the program"
            )
            error.everywhere = True
            raise error

    @contextlib.contextmanager
    def translating_peer_loss(self, path: str):
        """What in here ends because another process has gone, or does not answer, ends with a
        LaunchError that says so; `path` is the run folder's.
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
                f" ({str(error).splitlines()[0][:200]}); what it printed last says why, and"
                f" stacks-rank*.txt in {path}/attempts where it hung. The same line goes on from"
                " the last checkpoint"
            ) from error

    def close(self) -> None:
        """Leave the group; nothing may be asked of the others afterwards."""
        if self.world_size > 1:
            dist.barrier(group=self._wait)
            dist.destroy_process_group()


class SingleProcess(Ranks):
    """One process of a run as if it were alone, computing in the same types on the same device.

    What the others are compared with.
    """

    def __init__(self, ranks: Ranks):
        self._compute(
            ranks.machine.model_copy(
                update={
                    "accumulation": 1,
                    "compile": None,
                    "channels_last": False,
                    "sync_batchnorm": False,
                }
            ),
            ranks.precision,
        )
        self.engine_choice = dataclasses.replace(ranks.engine_choice, engine="ddp")
        self.rank, self.world_size, self.is_main, self.device = 0, 1, True, ranks.device

    def wrap(self, net: nn.Module) -> nn.Module:
        return net


def _begin_again(on_cpu: bool, timeout: datetime.timedelta) -> None:
    """Make the process group of ranks that torchrun has started again.

    Its agent keeps one store for all starts (torch 2.11, rendezvous.py), so the ranks would read
    the addresses of those that have gone. Accelerate and DeepSpeed take a group that is there.
    """
    env = os.environ
    again = env.get("TORCHELASTIC_RESTART_COUNT", "0")
    if again != "0" and env.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        store = dist.TCPStore(
            env["MASTER_ADDR"], int(env["MASTER_PORT"]), is_master=False, timeout=timeout
        )
        dist.init_process_group(
            "gloo" if on_cpu else "nccl",
            store=dist.PrefixStore(f"start {again}", store),
            rank=int(env["RANK"]),
            world_size=int(env["WORLD_SIZE"]),
            timeout=timeout,
        )


def exit_process(code: int) -> None:
    """End the process. Gloo's threads sometimes abort an interpreter that winds down (4 of 100
    runs), so ranks of a group leave directly.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if process_count()[1] > 1:
        os._exit(code)
    sys.exit(code)
