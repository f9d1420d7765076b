"""Names of torch and DeepSpeed that are not public, and that the engine needs, exist as it uses
them.
"""

import inspect

import torch
from torch.nn.modules._functions import SyncBatchNorm


def test_an_engine_can_queue_a_callback_within_a_backward_pass():
    called, x = [], torch.ones(1, requires_grad=True)
    queue = torch.autograd.Variable._execution_engine.queue_callback
    x.register_hook(lambda _: queue(lambda: called.append(True)))
    (2 * x).sum().backward()
    assert called == [True]


def test_the_loss_scale_is_a_tensor():
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    assert isinstance(scaler._scale, torch.Tensor) and float(scaler._scale) == scaler.get_scale()


def test_tensors_are_changed_in_one_call():
    values, others = [torch.tensor([1.0, -3.0])], [torch.tensor([2.0, 2.0])]
    gaps = torch._foreach_sub(others, values)
    torch._foreach_mul_(gaps, torch.tensor(0.5))
    torch._foreach_add_(values, gaps)
    torch._foreach_clamp_min_(values, -0.25)
    torch._foreach_clamp_max_(values, 1.25)
    assert values[0].tolist() == [1.25, -0.25]
    torch._foreach_copy_(values, others)
    torch._foreach_zero_(others)
    assert values[0].tolist() == [2.0, 2.0] and others[0].tolist() == [0.0, 0.0]


def test_fused_optimizers_take_the_flag_that_skips_a_step():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], lr=0.1, fused=True)
    assert optimizer._step_supports_amp_scaling
    for skipped in (1.0, 0.0):
        optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(skipped)
        weight.grad = torch.ones(3)
        optimizer.step()
        assert bool((weight == 1).all()) == bool(skipped)


def test_batch_norm_over_ranks_takes_these_arguments():
    assert [*inspect.signature(SyncBatchNorm.forward).parameters] == [
        "self", "input", "weight", "bias", "running_mean", "running_var", "eps", "momentum",
        "process_group", "world_size",
    ]  # fmt: skip


def test_deepspeed_has_the_table_of_operators_that_it_may_compile():
    import deepspeed

    assert isinstance(deepspeed.ops.__compatible_ops__, dict)
