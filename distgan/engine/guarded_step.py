"""An optimizer step that is skipped where the gradient is not finite, decided on the device."""

from typing import Any

import torch
from torch import nn


def step_where(optimizer: Any, finite: torch.Tensor) -> None:
    """Call `optimizer.step()` if `finite`, a scalar on the device, is 1.0; else change nothing.

    Does not wait for the device. Fused implementations take the flag themselves; with others
    everything is stepped and, where `finite` is 0.0, put back.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.grad_scale, optimizer.found_inf = None, 1 - finite
        optimizer.step()
        return
    if finite.device.type != "cpu":
        _step_and_put_back(optimizer, finite)
    elif finite:  # on a CPU, reading it costs nothing
        optimizer.step()


@torch.no_grad()
def _step_and_put_back(optimizer: torch.optim.Optimizer, finite: torch.Tensor) -> None:
    parameters = [
        p for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    if not all(optimizer.state.get(p) for p in parameters):
        _make_state_or_put_back(optimizer, parameters, finite)
        return
    values = _stepped(optimizer, parameters)
    # In one piece: a few kernels, instead of three for each weight and each of its moments.
    before = torch.cat([value.flatten() for value in values])
    optimizer.step()
    kept = torch.where(finite.bool(), torch.cat([value.flatten() for value in values]), before)
    torch._foreach_copy_(
        values,
        [
            part.view(value.shape)
            for part, value in zip(kept.split([v.numel() for v in values]), values, strict=True)
        ],
    )


def _make_state_or_put_back(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], finite: torch.Tensor
) -> None:
    """Take the first step: state that it makes starts at zero, and goes back to zero."""
    before = {value: value.clone() for value in _stepped(optimizer, parameters)}
    optimizer.step()
    for value in _stepped(optimizer, parameters):
        value.copy_(torch.where(finite.bool(), value, before.get(value, torch.zeros_like(value))))


def _stepped(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]
) -> list[torch.Tensor]:
    """Return the tensors that a step changes: weights and the optimizer's state."""
    return parameters + [
        value
        for p in parameters
        for value in optimizer.state.get(p, {}).values()
        if isinstance(value, torch.Tensor)
    ]
