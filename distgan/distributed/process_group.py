"""The process group of this process: made again after a restart, left after a run, kept where the
caller's script has made it.
"""

import datetime
import os

import torch.distributed as dist
from accelerate.state import AcceleratorState, PartialState

_left = 0  # groups that this process has made and left: a script may train several runs


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


def leave(before: tuple[bool, bool]) -> None:
    """Leave what this process did not have `before`, so that another run can be trained in it."""
    global _left
    had_accelerator, had_group = before
    if not had_accelerator:
        AcceleratorState._reset_state(reset_partial_state=True)
    if dist.is_initialized() and not had_group:
        dist.destroy_process_group()
        _left += 1
