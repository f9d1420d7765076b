"""A DeepSpeed JSON file: keys that tune how tensors travel are taken; keys that would change what
is trained are refused. Imports no torch.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from distgan.core.errors import LaunchError

_SWITCH, _COUNT, _MAPPING = "true or false", "a whole number above 0", "a mapping"
# Where tensors travel in pieces, and when: the sums are the same.
_ZERO = {
    "reduce_bucket_size": _COUNT,
    "allgather_bucket_size": _COUNT,
    "overlap_comm": _SWITCH,
    "contiguous_gradients": _SWITCH,
    "reduce_scatter": _SWITCH,
    "allgather_partitions": _SWITCH,
    "round_robin_gradients": _SWITCH,
}
# What DeepSpeed prints.
_TOP = {"steps_per_print": _COUNT, "wall_clock_breakdown": _SWITCH, "comms_logger": _MAPPING}
# Keys with another home; "auto" leaves them to it.
_ELSEWHERE = {
    "train_batch_size": "batch (the global batch)",
    "train_micro_batch_size_per_gpu": "batch and machine.accumulation",
    "gradient_accumulation_steps": "machine.accumulation",
    "gradient_clipping": "the recipe's own (clip=… in sagan)",
    "optimizer": "the recipe's own (g_lr=… and d_lr=… in sagan)",
    "scheduler": "the recipe's own (its schedule)",
}
_PRECISIONS = ("fp16", "bf16", "amp", "torch_autocast")
_OFFLOAD = ("offload_optimizer", "offload_param")


def read(path: str, accumulation: int, precision: str) -> tuple[Any, dict[str, Any], list[str]]:
    """(ZeRO stage or None, tuning keys nested as in the file, a line for each fault); LaunchError
    where there is no mapping to look at.

    A key whose value is "auto" is left to this trainer, and its default to DeepSpeed.
    """
    tree = {key: value for key, value in _load(path).items() if value != "auto"}
    zero = tree.pop("zero_optimization", {})
    wrong = [
        f"{path}: {fault}"
        for fault in (*_top_faults(tree, accumulation, precision), *_zero_faults(zero))
    ]
    stage = zero.get("stage") if isinstance(zero, dict) else None
    stage = None if stage == "auto" else stage
    if wrong:
        return stage, {}, wrong
    kept = {key: _whole(value) for key, value in tree.items() if key in _TOP}
    pieces = {key: _whole(value) for key, value in zero.items() if key in _ZERO and value != "auto"}
    return stage, kept | ({"zero_optimization": pieces} if pieces else {}), wrong


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            tree = json.load(file, object_pairs_hook=_without_twins)
    except OSError as error:
        raise LaunchError(
            f"cannot read the DeepSpeed configuration {path}: {error.strerror}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise LaunchError(
            f"the DeepSpeed configuration {path} is not valid JSON: {error}"
        ) from error
    if not isinstance(tree, dict):
        raise LaunchError(
            f'the DeepSpeed configuration {path} must hold a mapping, {{"key": value}}, found'
            f" {type(tree).__name__}"
        )
    return tree


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise ValueError(f"key {', '.join(sorted(twice))} stands twice in one mapping")
    return dict(pairs)


def _top_faults(tree: dict[str, Any], accumulation: int, precision: str) -> Iterator[str]:
    same: dict[str, Any] = {"gradient_accumulation_steps": accumulation, "gradient_clipping": 0}
    for key, value in tree.items():
        if key in _TOP:
            yield from _kind_fault(key, value, _TOP[key])
        elif key in _ELSEWHERE:
            if key not in same or isinstance(value, bool) or value != same[key]:
                yield (
                    f"{key}: found {_shown(value)}; leave it out, the setting is {_ELSEWHERE[key]}"
                )
        elif key in _PRECISIONS:
            off = isinstance(value, dict) and value.get("enabled", "auto") in (False, "auto")
            if not off and not (key == precision and value == {"enabled": True}):
                yield (
                    f"{key}: found {_shown(value)}, and precision={precision}; leave it out, the"
                    " setting is precision=bf16 or precision=fp16"
                )
        else:
            yield f"{key}: {_unknown(('zero_optimization', *_TOP))}"


def _zero_faults(zero: Any) -> Iterator[str]:
    if not isinstance(zero, dict):
        yield f"zero_optimization: found {_shown(zero)}, allowed is a mapping"
        return
    for key, value in zero.items():
        if value == "auto" or key == "stage":
            continue
        if key in _ZERO:
            yield from _kind_fault(f"zero_optimization.{key}", value, _ZERO[key])
        elif key in _OFFLOAD and isinstance(value, dict):
            if value.get("device", "none") != "none":
                yield (
                    f"zero_optimization.{key}: found device {_shown(value['device'])}; the networks"
                    " and their optimizers stay on the device, leave it out"
                )
        else:
            why = (
                "for ZeRO stage 3, which is not trained here; leave it out"
                if key.startswith("stage3_")
                else _unknown(("stage", *_ZERO))
            )
            yield f"zero_optimization.{key}: {why}"


def _unknown(known: Iterable[str]) -> str:
    return f"not a key that is taken from this file; there are {', '.join(known)}"


def _kind_fault(key: str, value: Any, kind: str) -> Iterator[str]:
    right = {
        _SWITCH: isinstance(value, bool),
        _MAPPING: isinstance(value, dict),
        _COUNT: (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and 0 < value < 1e12
            and value == int(value)
        ),
    }
    if not right[kind]:
        yield f"{key}: found {_shown(value)}, allowed is {kind}"


def _whole(value: Any) -> Any:
    """5e8 is a number with a point to JSON."""
    return int(value) if isinstance(value, float) else value


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:50]}…"
