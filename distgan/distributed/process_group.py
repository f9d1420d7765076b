"""The process group of this process: made again after a restart, left after a run, kept where the
caller's script has made it.
"""

import datetime
import os
from typing import Any

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from distgan.core.errors import LaunchError

_left = 0  # groups that this process has made and left: a script may train several runs
_beside: list[dist.ProcessGroup] = []  # groups that were made beside the default one


def existing() -> tuple[bool, bool]:
    """Return whether this process has an Accelerator, and a group: those of the caller."""
    return bool(PartialState._shared_state), dist.is_initialized()


def begin_again(on_cpu: bool, timeout: datetime.timedelta) -> None:
    """Make the process group of ranks that torchrun has restarted, or that have left one.

    Its agent keeps one store for all of them (torch 2.11, rendezvous.py), where the ranks would
    read the addresses of dead ones. Accelerate and DeepSpeed use a group that exists.
    """
    env = os.environ
    again = f"{env.get('TORCHELASTIC_RESTART_COUNT', '0')}.{_left}"
    if again != "0.0" and env.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
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


def accelerator(on_cpu: bool, handlers: list[Any]) -> Accelerator:
    """Return an Accelerator in float32; LaunchError where the caller's own has other settings."""
    try:
        return Accelerator(cpu=on_cpu, mixed_precision="no", kwargs_handlers=handlers)
    except ValueError as error:
        if not PartialState._shared_state:
            raise
        raise LaunchError(
            "this program has made an Accelerator with other settings, of which a process has one:"
            f" {error}. Train before it is made, or in a process of its own"
        ) from error


def on_cpus(timeout: datetime.timedelta) -> dist.ProcessGroup:
    """Return a new group of all ranks for messages by gloo; `leave` destroys it. Collective."""
    group = dist.new_group(backend="gloo", timeout=timeout)
    _beside.append(group)
    return group


def leave(before: tuple[bool, bool]) -> None:
    """Leave what this process did not have `before`, so that another run can be trained in it."""
    global _left
    had_accelerator, had_group = before
    if not had_accelerator:
        AcceleratorState._reset_state(reset_partial_state=True)
    if dist.is_initialized():
        if had_group:
            for group in _beside:
                dist.destroy_process_group(group)
        else:
            dist.destroy_process_group()
            _left += 1
    _beside.clear()
