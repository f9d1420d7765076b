"""Between two flushes of the journal no step waits for the device. Held without a GPU: no step
calls an operation that would have to.

A CPU cannot be waited for; what is caught are operations that need a value on the host, and tensors
made from Python data on the way. What only a GPU shows, such as a copy from memory that is not
pinned, `python -m bench.options --only default` counts there.
"""

import contextlib

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from bench import training
from distgan.engine import ddp
from distgan.recipes import r3gan, sagan, wgan_flowers

aten = torch.ops.aten
# lift_fresh: torch.tensor and new_tensor, which on a GPU copy from ordinary memory.
WAITS = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.lift_fresh,
}


class NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        by_mask = function.overloadpacket in (aten.index, aten.index_put_) and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        if function.overloadpacket in WAITS or by_mask:
            raise AssertionError(f"{function} would wait for a GPU")
        return function(*args, **(kwargs or {}))


class NoFetching(TorchFunctionMode):
    """What reads the memory of a CPU's tensor without an operation."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu):
            raise AssertionError(f"{function.__name__} would wait for a GPU")
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def arrays_stay_on_the_host(monkeypatch):
    """torch.from_numpy copies nothing, yet calls the operation of torch.tensor."""
    seen = torch.from_numpy

    def from_numpy(array):
        with _disable_current_modes():
            return seen(array)

    monkeypatch.setattr(torch, "from_numpy", from_numpy)


@pytest.fixture
def opened(tmp_path):
    """A function: (recipe's module, settings) -> its loop."""
    loops = []

    def loop(module, *settings):
        tiny = [
            "ngf=4",
            "ndf=4",
            "latent=8",
            "batch=8",
            "machine.flush_steps=5",
            "rollback_every=1000",
            "machine.device=cpu",
            *settings,
        ]
        loops.append(
            training.loop(
                module,
                tiny,
                training.write_images(tmp_path / "data", 32),
                tmp_path / "run",
                steps=10,
            )
        )
        return loops[0]

    yield loop
    for loop in loops:
        loop.folder.close()


def watched(loop) -> None:
    """Train; steps 7 to 9, which lie between two flushes, must not wait."""
    with contextlib.ExitStack() as watching:

        def before(step):
            if step == 6:
                watching.enter_context(NoWaiting())
                watching.enter_context(NoFetching())
            if step == 9:
                watching.close()

        training.before_each_step(loop.recipe, before)
        loop.train()


def test_no_step_waits(opened):
    loop = opened(sagan)
    watched(loop)
    assert loop.recipe.G.updates == 10


@pytest.mark.gate
@pytest.mark.parametrize("module", [sagan, r3gan])
def test_no_step_with_augmentation_waits(opened, module):
    watched(opened(module, "diffaugment=[color, translation, cutout]"))


@pytest.mark.gate
@pytest.mark.parametrize(
    "settings",
    [[], ["penalty=10", "optimizer=adam"], ["rotation=15", "jitter=0.2", "ema=0.99"]],
    ids=" ".join,
)
def test_no_step_of_wgan_flowers_waits(opened, settings, monkeypatch):
    step = ddp.step_where

    def asked_on_the_cpu(optimizer, finite):
        # RMSprop has no fused implementation: there, and only there, a CPU is asked whether to step
        with _disable_current_modes():
            step(optimizer, finite)

    if "optimizer=adam" not in settings:
        monkeypatch.setattr(ddp, "step_where", asked_on_the_cpu)
    watched(opened(wgan_flowers, *settings))


@pytest.mark.gate
@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(torch.isfinite(x).all()),
        lambda x: x[x > 0],
        lambda x: x.new_tensor(1.0),
        lambda x: torch.tensor([1.0]),
        lambda x: x.nonzero(),
        lambda x: torch.equal(x, x),
        lambda x: x.tolist(),
    ],
    ids=["item", "bool", "mask", "new_tensor", "tensor", "nonzero", "equal", "tolist"],
)
def test_a_step_that_waits_is_caught(opened, wait):
    loop = opened(sagan)
    loss = loop.recipe._g_loss
    loop.recipe._g_loss = lambda micro, turn: (wait(micro.real), loss(micro, turn))[1]
    with pytest.raises(AssertionError, match="would wait for a GPU"):
        watched(loop)
