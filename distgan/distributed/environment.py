"""Read the environment that a launcher left: the number of processes and the engine.

Every variable is honoured or refused, none ignored. accelerate and deepspeed have configurations of
their own, which must agree with the run's settings: otherwise something else would be trained than
one of them says. Imports no torch.
"""

import contextlib
import dataclasses
import os
import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import distgan
from distgan.config.sections import Machine
from distgan.core import console
from distgan.core.errors import LaunchError
from distgan.distributed import deepspeed_json as tuning

CONFIGS = Path(distgan.__file__).with_name("configs")  # of accelerate and DeepSpeed
# The number of processes, as each launcher names it, most specific first.
_COUNTS = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
# Accelerator() would act upon these itself: make a plugin that needs transformers, or compile every
# network once more.
_SETTLED = (
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_DEEPSPEED_ZERO_STAGE",
    "ACCELERATE_DEEPSPEED_CONFIG_FILE",
    "ACCELERATE_MIXED_PRECISION",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    "ACCELERATE_GRADIENT_CLIPPING",
    "ACCELERATE_DYNAMO_BACKEND",
    "ACCELERATE_DYNAMO_MODE",
)
_NEVER = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism_config",
}
_NEVER_IN_DEEPSPEED = {
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "offload_optimizer_device",
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "offload_param_device",
    "ACCELERATE_DEEPSPEED_MOE_LAYER_CLS_NAMES": "deepspeed_moe_layer_cls_names",
}
_NO_STAGE_3 = (
    "ZeRO stage 3 is refused: rank 0 alone validates, draws grids and writes checkpoints, for which"
    " it needs whole networks; a gradient penalty through a partitioned critic fails in DeepSpeed"
    " (double backward); networks of this size gain nothing by it"
)


@dataclasses.dataclass(frozen=True)
class EngineChoice:
    """The engine of a run; `deepspeed`: tuning keys as in DeepSpeed's JSON, without the stage."""

    engine: Literal["ddp", "deepspeed"] = "ddp"
    zero_stage: int = 0
    deepspeed: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"DeepSpeed ZeRO {self.zero_stage}" if self.engine == "deepspeed" else "DDP"


LEAST_ADDRESS_SPACE = 3_500_000_000  # bytes; measured on a CPU, with torch 2.11


def redirect_log() -> None:
    """Write the output of this process and its children to rankN.log in $DISTGAN_LOGS, if set and
    if that file can be opened.
    """
    folder = os.environ.get("DISTGAN_LOGS")
    if folder:
        path = os.path.join(folder, f"rank{os.environ.get('RANK', '0')}.log")
        try:
            log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            return console.say(f"warning: cannot write {path}: {error.strerror}; printing here")
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)


def require_address_space() -> None:
    """Raise LaunchError where `ulimit -v` leaves less than torch maps when it is imported: its C++
    would end the process, without a message that says so.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        raise LaunchError(
            f"this shell limits a process to {limit / 1e9:.3g} GB of address space (ulimit -v), and"
            f" torch needs {LEAST_ADDRESS_SPACE / 1e9:g} GB to start. Use `ulimit -v unlimited`, or"
            " limit the memory by the scheduler or a control group"
        )


def process_count() -> tuple[str, int]:
    """Return (the variable in which a launcher left its process count, the count).

    ("", 1) without a launcher.
    """
    for name in _COUNTS:
        if os.environ.get(name, "").isdigit():
            return name, int(os.environ[name])
    return "", 1


def own_place() -> tuple[int, int]:
    """Return (rank, processes): of the process group that was joined, else as a launcher says, else
    (0, 1). LaunchError where a launcher started several processes and gave this one no rank.
    """
    group = sys.modules.get("torch.distributed")
    if group and group.is_available() and group.is_initialized():
        return group.get_rank(), group.get_world_size()
    source, count = process_count()
    rank = os.environ.get("RANK", "0" if count == 1 else "")
    if not rank.isdigit() or int(rank) >= count:
        raise LaunchError(
            f"{source or 'WORLD_SIZE'}={count if source else ''} and RANK={rank}: which part is"
            " this process to read? Start it with torchrun, or give rank=… and world=…"
        )
    return int(rank), count


def check_environment() -> None:
    """Raise LaunchError if a launcher's variables are incomplete or do not fit each other."""
    env = os.environ
    source, count = process_count()
    if count > 1 and source != "WORLD_SIZE":
        raise LaunchError(
            f"{source}={count}: {count} processes were started, but without RANK and WORLD_SIZE"
            " each would train alone as rank 0. Start them with torchrun or accelerate launch"
        )
    numbers = {
        name: env[name]
        for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT")
        if name in env
    }
    wrong = [
        f"{name}={value!r} is no number" for name, value in numbers.items() if not value.isdigit()
    ]
    if count > 1:
        wrong += [
            f"{name} is missing"
            for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
            if not env.get(name)
        ]
    if not wrong and int(env.get("RANK", 0)) >= count:
        wrong = [
            f"RANK={env['RANK']}, allowed are 0 to {count - 1} with"
            f" WORLD_SIZE={env.get('WORLD_SIZE', 'missing')}"
        ]
    if wrong:
        raise LaunchError(
            f"the environment names a process group that cannot be joined: {'; '.join(wrong)}. "
            "torchrun and accelerate launch set these variables; unset them to train in one process"
        )


def resolve_engine(machine: Machine, precision: str) -> EngineChoice:
    """Return the engine that the settings and the launcher name.

    Raises LaunchError with all that they disagree on or that is not supported. One process always
    gets "ddp", after the same checks.
    """
    asked, wrong = (
        EngineChoice(),
        [*_accelerate(machine, precision), *_dynamo(machine), *_on_cpu(machine)],
    )
    if _kind(machine) == "deepspeed":
        asked, more = _deepspeed(machine, precision)
        wrong += more
    elif _text("ACCELERATE_USE_DEEPSPEED"):
        wrong.append(
            "machine.engine=ddp, but accelerate was configured for DeepSpeed; leave machine.engine"
            f" out, or start with {CONFIGS}/accelerate.yaml"
        )
    else:
        wrong += [
            f"machine.{name}={value} is for DeepSpeed, and this run's engine is ddp; set"
            " machine.engine=deepspeed or leave it out"
            for name in ("zero_stage", "deepspeed_config")
            if (value := getattr(machine, name)) is not None
        ]
    if wrong:
        raise LaunchError(
            wrong[0]
            if len(wrong) == 1
            else "\n".join(
                [f"{len(wrong)} faults of how this run was started:", *(f"  {w}" for w in wrong)]
            )
        )
    return asked if process_count()[1] > 1 else EngineChoice()


@contextlib.contextmanager
def settled_variables() -> Iterator[None]:
    """Hide, within the block, the variables that `resolve_engine` has settled from Accelerator."""
    hidden = {name: os.environ.pop(name) for name in _SETTLED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _text(name: str) -> str:
    """Return a variable's value in lower case; "" where it is not set or says no."""
    value = os.environ.get(name, "").strip().lower()
    return "" if value in ("no", "none", "false", "0") else value


def _kind(machine: Machine) -> Literal["ddp", "deepspeed"]:
    if machine.engine != "auto":
        return machine.engine
    # The deepspeed launcher sets these two; torchrun, and with it accelerate, sets
    # LOCAL_WORLD_SIZE.
    by_deepspeed = os.environ.get("CROSS_SIZE") and os.environ.get("LOCAL_SIZE")
    return "deepspeed" if _text("ACCELERATE_USE_DEEPSPEED") or by_deepspeed else "ddp"


def _accelerate(machine: Machine, precision: str) -> Iterator[str]:
    """Yield where accelerate's configuration contradicts the run's settings.

    Its "no", the default, leaves a choice to the run.
    """
    for name, meaning in _NEVER.items():
        if _text(name):
            yield (
                f"accelerate was configured for {meaning} ({name}={os.environ[name]}), in which"
                f" nothing here is trained; use {CONFIGS}/accelerate.yaml"
            )
    mixed = _text("ACCELERATE_MIXED_PRECISION")
    if mixed and mixed != precision:
        known = f"set precision={mixed}, or " if mixed in ("bf16", "fp16") else ""
        yield (
            f"accelerate was configured with mixed_precision: {mixed}, but precision={precision};"
            f' {known}write mixed_precision: "no" in its configuration'
        )
    steps = _text("ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
    if steps not in ("", "1", "auto", str(machine.accumulation)):
        yield (
            f"accelerate was configured with gradient_accumulation_steps: {steps}, but"
            f" machine.accumulation={machine.accumulation}; leave it out of accelerate's"
            " configuration, machine.accumulation decides"
        )
    clip = _text("ACCELERATE_GRADIENT_CLIPPING")
    if clip not in ("", "auto", "0.0"):
        yield (
            f"accelerate was configured with gradient_clipping: {clip}; leave it out of"
            " accelerate's configuration, the recipe's own setting (clip=… in sagan) decides"
        )


def _dynamo(machine: Machine) -> Iterator[str]:
    backend, mode = _text("ACCELERATE_DYNAMO_BACKEND"), _text("ACCELERATE_DYNAMO_MODE") or "default"
    options = [
        name
        for name in ("FULLGRAPH", "DYNAMIC", "REGIONAL_COMPILATION")
        if _text(f"ACCELERATE_DYNAMO_USE_{name}")
    ]
    if not backend:
        return
    if backend != "inductor" or options:
        found = ", ".join(
            [f"dynamo_backend: {backend}", *(f"dynamo_use_{name.lower()}" for name in options)]
        )
        yield (
            f'accelerate was configured with {found}; write dynamo_backend: "no" there,'
            " machine.compile=default compiles each network with inductor"
        )
    elif mode != machine.compile:
        yield (
            f"accelerate was configured with dynamo_backend: inductor, dynamo_mode: {mode}, but"
            f" machine.compile={machine.compile or 'null'}; "
            f'set machine.compile={mode}, or write dynamo_backend: "no" in its configuration'
        )


def require_gpus(machine: Machine, count: int) -> None:
    """Raise LaunchError where a job asked for more GPUs on each node than the `count` that torch
    sees: a run that was meant for GPUs would train on the processors, and say nothing.
    """
    given = os.environ.get("DISTGAN_GPUS", "")
    if machine.device == "auto" and given.isdecimal() and count < int(given):
        raise LaunchError(
            f"{given} GPUs were requested on each node, and torch sees {count} on"
            f" {socket.gethostname()}: a driver that is too old, a torch without CUDA, or a broken"
            " node; what `nvidia-smi` prints there says which. `distgan retry RUN --set"
            f" exclude={socket.gethostname()}` leaves the node out; machine.device=cpu trains on"
            " processors"
        )


def _on_cpu(machine: Machine) -> Iterator[str]:
    if machine.device == "cuda" and _text("ACCELERATE_USE_CPU"):
        yield (
            "machine.device=cuda, but accelerate was configured with use_cpu: true"
            " (ACCELERATE_USE_CPU); make it false, or leave machine.device out"
        )


def _deepspeed(machine: Machine, precision: str) -> tuple[EngineChoice, list[str]]:
    """Return (stage and tuning keys from the settings, accelerate's configuration and the JSON
    file of either; their faults).
    """
    by_accelerate = bool(_text("ACCELERATE_USE_DEEPSPEED"))
    wrong = [
        f"accelerate was configured with {meaning}: {_text(name)}, which is not trained here; leave"
        " it out"
        for name, meaning in _NEVER_IN_DEEPSPEED.items()
        if by_accelerate and _text(name)
    ]
    theirs = os.environ if by_accelerate else {}  # what it left of another start means nothing
    stages: dict[str, Any] = {
        "machine.zero_stage": machine.zero_stage,
        "accelerate's zero_stage": theirs.get("ACCELERATE_DEEPSPEED_ZERO_STAGE"),
    }
    files = {
        "machine.deepspeed_config": machine.deepspeed_config,
        "accelerate's deepspeed_config_file": theirs.get("ACCELERATE_DEEPSPEED_CONFIG_FILE"),
    }
    paths = {where: path for where, path in files.items() if path and path != "none"}
    if len({os.path.realpath(path) for path in paths.values()}) > 1:
        wrong.append(
            " and ".join(f"{where} ({path})" for where, path in paths.items())
            + " are two files; name one of them"
        )
    keys: dict[str, Any] = {}
    for path in list(paths.values())[:1]:
        stages[path], keys, more = tuning.read(path, machine.accumulation, precision)
        wrong += more
    found = {where: str(stage) for where, stage in stages.items() if stage not in (None, "")}
    if len(set(found.values())) > 1:
        wrong.append(
            f"{', '.join(f'{where} is {stage}' for where, stage in found.items())}: which ZeRO"
            " stage? Leave all but one out"
        )
    stage = next(iter(found.values()), "0")
    if stage == "3":
        wrong.append(f"{_NO_STAGE_3}. It comes from {next(iter(found))}; allowed are 0, 1 and 2")
    elif stage not in ("0", "1", "2"):
        wrong.append(f"{next(iter(found))}: found {stage!r}, allowed are 0, 1 and 2")
    return EngineChoice("deepspeed", int(stage) if stage in ("0", "1", "2") else 0, keys), wrong
