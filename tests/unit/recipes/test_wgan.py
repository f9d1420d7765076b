"""The Wasserstein system: its networks, its two ways to bound the critic, and equal runs with
both.
"""

import numpy as np
import pytest
import torch
from torch import nn

from distgan.config import batch_layout, loading
from distgan.core.clock import Clock
from distgan.core.errors import ConfigError
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.data.loader import MicroBatch, Stream
from distgan.distributed.ranks import Ranks
from distgan.monitor.decisions import adapt, evaluate_rules, next_moves
from distgan.nn import losses
from distgan.nn.normalization import GroupBatchNorm2d
from distgan.recipes._base import apply_settings
from distgan.recipes._noise import overfitting_ratio
from distgan.recipes.wgan_flowers import Recipe, Settings

SMALL = ["ngf=4", "ndf=4", "latent=8", "batch=12", "n_critic=2"]


def settings(*words: str) -> Settings:
    return loading.validate(Settings, {"recipe": "wgan_flowers", "data": "-"}, list(words))


def recipe(*words: str) -> Recipe:
    """In one process, on the CPU."""
    chosen = settings(*words)
    torch.manual_seed(0)
    return Recipe(
        chosen,
        Ranks(chosen.machine.model_copy(update={"device": "cpu"})),
        batch_layout.fit(chosen.batch, 1, 1, chosen.group),
        (3, 64, 64),
    )


def batches(count: int, size: int = 12) -> list[list[MicroBatch]]:
    """Batches of noise, each at its own place of the stream."""
    reals = torch.randint(0, 256, (count, size, 3, 64, 64), dtype=torch.uint8)
    places = np.arange(count * size).reshape(count, size)
    return [
        [MicroBatch(real, at, at, slice(0, size), k)]
        for k, (real, at) in enumerate(zip(reals, places, strict=True))
    ]


# ---- losses
def test_the_losses_by_hand():
    real, fake = torch.tensor([3.0, 1.0]), torch.tensor([-1.0, 0.0])
    assert losses.d_wasserstein(real, fake).item() == -2.5
    assert losses.g_wasserstein(fake).item() == 0.5


def test_the_penalty_of_a_linear_critic_by_hand():
    """D(x) = w·x has the gradient w everywhere.

    (|w| - 1)², whose own gradient is 2 (|w| - 1) w / |w|.
    """
    weight = torch.tensor([3.0, 0.0, 4.0], requires_grad=True)
    penalty = losses.gradient_penalty(
        lambda x: x @ weight, torch.randn(5, 3), torch.randn(5, 3), torch.rand(5)
    )
    assert penalty.item() == pytest.approx(16)
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * 4 * weight.detach() / 5)


def test_the_penalty_is_taken_between_real_and_generated_samples():
    seen = []

    def square(x):  # the gradient at x is x
        seen.append(x)
        return x.square().sum((1, 2, 3)) / 2

    real, fake = torch.full((2, 1, 1, 1), 4.0), torch.full((2, 1, 1, 1), 2.0)
    penalty = losses.gradient_penalty(square, real, fake, torch.tensor([0.25, 1.0]))
    assert seen[0].flatten().tolist() == [2.5, 4.0]
    assert penalty.item() == pytest.approx((1.5**2 + 3**2) / 2)


def test_overfit_is_a_share_of_a_gap_that_is_there():
    draw = torch.Generator().manual_seed(0)
    held_out, seen, fake = (torch.randn(400, generator=draw) + mean for mean in (1.0, 2.0, 0.0))
    assert overfitting_ratio(held_out, seen, fake) == pytest.approx(0.5, abs=0.1)
    assert (
        overfitting_ratio(held_out, fake, seen) == 0
    )  # training images look generated: no gap to share
    assert (
        overfitting_ratio(held_out, seen, seen + 0.01)
        == 0
        == overfitting_ratio(held_out, seen + 0.01, seen)
    )


def test_the_penalty_by_finite_differences():
    """Gulrajani et al. 2017, eq. 3, with a network in which nothing cancels: the slope at each
    point, and what the penalty tells the weights.
    """
    torch.manual_seed(1)
    critic = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 1)).double()
    real, fake, share = (
        torch.randn(3, 2, 4, 4).double(),
        torch.randn(3, 2, 4, 4).double(),
        torch.rand(3).double(),
    )
    between = (share[:, None, None, None] * real + (1 - share[:, None, None, None]) * fake).flatten(
        1
    )

    def by_differences(step=1e-5):
        slopes = torch.stack(
            [
                (
                    critic((between + step * unit).view(3, 2, 4, 4))
                    - critic((between - step * unit).view(3, 2, 4, 4))
                )[:, 0]
                / (2 * step)
                for unit in torch.eye(32).double()
            ],
            1,
        )
        return ((slopes.square().sum(1).sqrt() - 1) ** 2).mean().item()

    penalty = losses.gradient_penalty(lambda x: critic(x)[:, 0], real, fake, share)
    with torch.no_grad():
        assert penalty.item() == pytest.approx(by_differences(), rel=1e-6)
        (penalty_grad,) = torch.autograd.grad(penalty, critic[0].weight)
        for place in ((0, 0, 0, 0), (2, 1, 1, 2)):
            kept, around = critic[0].weight[place].item(), []
            for change in (1e-3, -1e-3):
                critic[0].weight[place] = kept + change
                around.append(by_differences())
            critic[0].weight[place] = kept
            assert penalty_grad[place].item() == pytest.approx(
                (around[0] - around[1]) / 2e-3, rel=1e-3, abs=1e-6
            )


def test_the_critic_has_no_sigmoid_because_a_distance_has_no_upper_end():
    """The Wasserstein distance is the largest E[D(x)] - E[D(y)] over all D of slope 1 at the most
    (Arjovsky et al. 2017, eq. 2): those are unbounded.

    Two points 10 apart have a distance of 10, which D(x) = x finds. Squeezed into (0, 1) it finds
    less than 1, and tells the far point, which has the longest way to go, next to nothing of it.
    """
    real, fake = torch.tensor([10.0]), torch.tensor([0.0], requires_grad=True)
    assert -losses.d_wasserstein(real, fake).item() == 10
    assert torch.autograd.grad(losses.g_wasserstein(fake), fake)[0].item() == -1
    far = torch.tensor([-10.0], requires_grad=True)
    assert -losses.d_wasserstein(real.sigmoid(), far.sigmoid()).item() < 1
    assert abs(torch.autograd.grad(losses.g_wasserstein(far.sigmoid()), far)[0].item()) < 1e-4
    for words in ([], ["penalty=10"], ["spectral_norm=[D]"]):
        critic = recipe(*SMALL, *words).D.module.eval()
        assert isinstance(critic.layers[-1], nn.Conv2d) and not [
            m for m in critic.modules() if isinstance(m, nn.Sigmoid | nn.Tanh)
        ]
        images = torch.rand(4, 3, 64, 64) * 2 - 1
        with torch.no_grad():
            before = critic(images)
            louder = 10 / before.abs().max()
            critic.layers[-1].register_forward_hook(
                lambda module, inputs, out, louder=louder: louder * out
            )
            torch.testing.assert_close(
                critic(images), louder * before
            )  # up to 10: nothing after the last convolution squeezes it


# ---- the networks
def test_the_networks_start_as_in_the_documents():
    """Convolutions N(0, 0.02), batch norm N(1, 0.02) with bias 0."""
    made = recipe(
        "penalty=10"
        # clipping begins before the first step, with the gains of batch norm as in Arjovsky et
        # al.'s
        # code
    )
    for player in made.players.values():
        for module in player.module.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | GroupBatchNorm2d):
                spread = 0.02 * 5 / (2 * module.weight.numel()) ** 0.5  # five standard errors
                assert module.weight.std().item() == pytest.approx(0.02, abs=spread)
                assert module.weight.mean().item() == pytest.approx(
                    1.0 if isinstance(module, GroupBatchNorm2d) else 0.0, abs=2 * spread
                )
            if getattr(module, "bias", None) is not None:
                assert not module.bias.any()


def test_the_networks_are_those_of_the_documents():
    made = recipe()
    sizes = {
        name: sum(p.numel() for p in player.module.parameters())
        for name, player in made.players.items()
    }
    convolutions = {
        "G": (100 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 3) * 16 + 3,
        "D": (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) * 16 + 64,
    }
    assert sizes == {
        "G": convolutions["G"] + 2 * (512 + 256 + 128 + 64),
        "D": convolutions["D"] + 2 * (128 + 256 + 512),
    }
    shapes = []
    for layer in made.G.module.layers:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(
                lambda module, args, out: shapes.append(tuple(out.shape[1:]))
            )
    images = made.sample(np.arange(2))
    assert shapes == [(512, 4, 4), (256, 8, 8), (128, 16, 16), (64, 32, 32), (3, 64, 64)]
    with made.D.evaluating() as critic:
        assert critic(images).shape == (2,)
    kinds = [type(layer) for layer in made.D.module.layers]
    assert (
        kinds[:5] == [nn.Conv2d, nn.LeakyReLU, nn.Conv2d, GroupBatchNorm2d, nn.LeakyReLU]
        and kinds[-1] is nn.Conv2d
    )
    assert {type(player.engine.optimizer) for player in made.players.values()} == {
        torch.optim.RMSprop
    } and made.run.batches_per_step == 5


def test_the_critic_of_a_penalty_mixes_no_samples():
    made = recipe(*SMALL, "penalty=10", "attention=[16]", "optimizer=adam")
    kinds = [type(layer) for layer in made.D.module.layers]
    assert nn.GroupNorm in kinds and GroupBatchNorm2d not in kinds
    images = torch.randn(4, 3, 64, 64)
    torch.testing.assert_close(made.D.module(images)[:1], made.D.module(images[:1]))


@pytest.mark.gate
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_options_of_the_networks(norm):
    made = recipe(
        *SMALL, f"critic_norm={norm}", "spectral_norm=[G, D]", "attention=[8, 32]", "ema=0.9"
    )
    for player in made.players.values():
        layers = [
            m for m in player.module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
        ]
        assert len(layers) == 5 + 2 * 3 and all(
            hasattr(layer, "parametrizations") for layer in layers
        )
    log = made.step(batches(2), Clock(24, 54))
    assert all(torch.isfinite(value) for value in log.values())
    assert made.sample(np.arange(3)).shape == (3, 3, 64, 64)


# ---- a step
def test_the_penalty_differentiates_a_network_that_is_compiled(monkeypatch):
    """torch refuses to differentiate what it compiled twice; any call of it is refused here."""
    monkeypatch.setattr(torch, "compile", lambda net, **how: lambda x: net(_once(x)))
    monkeypatch.setattr(
        torch.compiler, "cudagraph_mark_step_begin", lambda: None
    )  # which imports the whole compiler
    made = recipe(*SMALL, "penalty=10", "machine.compile=default")
    assert torch.isfinite(made.step(batches(2), Clock(24, 54))["d/penalty"])


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad


_once = _Once.apply


def test_all_weights_of_the_critic_stay_clipped():
    made = recipe(*SMALL)
    for _ in range(3):
        made.step(batches(2), Clock(24, 54))
        largest = {name: p.abs().max().item() for name, p in made.D.module.named_parameters()}
        assert max(largest.values()) == pytest.approx(0.01) and any(
            p.abs().max() > 0.01 for p in made.G.module.parameters()
        )
    made = recipe(*SMALL, "penalty=10")
    made.step(batches(2), Clock(24, 54))
    assert max(p.abs().max() for p in made.D.module.parameters()) > 0.5


def test_each_critic_update_sees_a_batch_of_its_own(monkeypatch):
    made, seen, noise = recipe(*SMALL[:-1], "n_critic=3", "penalty=10"), [], []
    given = batches(3)
    usual = made._noise
    monkeypatch.setattr(
        made, "_noise", lambda micro, purpose: noise.append(usual(micro, purpose)) or noise[-1]
    )
    monkeypatch.setattr(
        made, "_real", lambda micro: seen.append(micro) or torch.zeros(12, 3, 64, 64)
    )
    made.step(given, Clock(36, 54))
    assert [id(micro) for micro in seen] == [id(micro) for (micro,) in given]
    assert len({tuple(row.flatten().tolist()) for row in noise}) == 3 + 1


def test_no_critic_step_reuses_the_real_batch_of_another(flowers):
    """The defect that the documents know of.

    Five critic steps on one batch. Here a step of the loop, from the stream of the data set.
    """
    made, data, seen = recipe(*SMALL[:-1], "n_critic=5", "batch=10"), Data(str(flowers)), []
    stream = iter(
        Stream(
            data, 0, batch_layout.fit(10, 1, 1, 10), 0, torch.device("cpu"), resident_bytes=1 << 30
        )
    )
    usual = made._real
    made._real = lambda micro: seen.append(micro.real.clone()) or usual(micro)
    made.step([next(stream) for _ in range(made.run.batches_per_step)], Clock(50, 54))
    images = torch.cat(seen).flatten(1)
    assert [len(batch) for batch in seen] == [10] * 5 and len(torch.unique(images, dim=0)) == 50


def test_augmentations_are_options():
    plain, changed = (
        recipe(*SMALL, "hflip=0"),
        recipe(*SMALL, "hflip=0", "rotation=15", "translation=0.1", "jitter=0.2"),
    )
    ((micro,),) = batches(1)
    assert torch.equal(plain._real(micro), micro.real / 127.5 - 1)
    assert changed._real(micro).shape == (12, 3, 64, 64) and not torch.equal(
        changed._real(micro), plain._real(micro)
    )


def test_jitter_is_of_brightness_and_contrast_and_of_saturation_in_runs_of_before():
    ((micro,),) = batches(1)
    plain = recipe(*SMALL, "hflip=0")._real(micro)
    run = settings(*SMALL, "hflip=0", "jitter=0.2")
    *_, before = run.earlier_versions()
    assert before.saturation is None and run.saturation == 0
    for words, strengths in (
        ((), (0.2, 0.2, 0.0)),
        (("saturation=null",), (0.2, 0.2, 0.2)),
        (("contrast=0", "saturation=0.1"), (0.2, 0.0, 0.1)),
    ):
        changed = recipe(*SMALL, "hflip=0", "jitter=0.2", *words)._real(micro)
        expected = transforms.colour_jitter(plain, run.seed, micro.address, *strengths)
        assert torch.equal(changed, expected)


# ---- settings
def test_the_defaults_of_the_documents():
    run = settings()
    assert (run.batch, run.group, run.epochs, run.latent, run.n_critic, run.g_lr, run.d_lr) == (
        256,
        256,
        2633,
        100,
        5,
        1e-4,
        1e-4,
    )
    assert (run.weight_clip, run.optimizer, run.hflip, run.normalisation, run.penalty) == (
        0.01,
        "rmsprop",
        0.5,
        "batch",
        None,
    )
    assert settings("penalty=10").normalisation == "layer"
    assert settings("batch=300").group == 150
    assert (
        run.betas,
        run.lr_every,
        run.attention,
        run.spectral_norm,
        run.rotation,
        run.jitter,
        run.translation,
        run.ema,
        run.results,
    ) == ((0.0, 0.9), None, (), (), 0, 0, 0, None, None)


def test_the_default_length_is_the_documents_16000_updates_of_g():
    """500 epochs of 32 batches; schedules in epochs are as often in the course of a run."""
    run = settings()
    *_, before = run.earlier_versions()
    clock = Clock(run.batch * run.batches_per_step, 7780)
    lengths = [clock.steps(each.epochs) for each in (before, run)]
    assert lengths == [3040, 16_004]
    evaluations = [
        sum(clock.at(step).due_in(each.evaluate.schedule) for step in range(last + 1))
        for each, last in zip((before, run), lengths, strict=True)
    ]
    assert evaluations == [35, 36]


def test_each_option_of_the_documents_is_there():
    run = settings(
        "penalty=10",
        "optimizer=adam",
        "betas=[0, 0.9]",
        "lr_every=100",
        "lr_factor=0.5",
        "rotation=15",
        "jitter=0.2",
        "translation=0.1",
        "attention=[16]",
        "spectral_norm=[G, D]",
    )
    assert run.penalty == 10
    for count in range(3, 11):
        assert settings(f"n_critic={count}").n_critic == count


def test_the_guide_names_the_options_of_the_documents():
    """Of an unbounded critic, what the score says is judged.

    Sagan's moves would name settings that this recipe has not.
    """
    run = settings()
    assert {
        move.setting for moves in run.watch.moves.values() for move in moves
    } <= run.model_dump().keys()
    rows = [
        {
            "step": k,
            "samples": k,
            "epoch": 50.0 * k,
            "eval/frechet_standin": 20.0 if k == 0 else 10.0,
        }
        for k in range(20)
    ]
    (found,) = evaluate_rules(rows, run.watch, run.model_dump(mode="json"))
    assert found.rule == "score_flat" and found.advice.startswith(
        "g_lr 1e-4→5e-5, d_lr 1e-4→5e-5; not in flight: n_critic 5→7, penalty null→10, optimizer"
        " rmsprop→adam, lr_every null→500, attention []→[16]"
    )
    assert adapt([found], run.watch, run.model_dump(mode="json")) == {
        "g_lr": 5e-5,
        "d_lr": 5e-5,
    }
    assert next_moves("d_overfitting", run.watch, run.model_dump(mode="json"), True) == {
        "rotation": 15,
        "jitter": 0.2,
        "translation": 0.1,
    }


def test_augmentation_can_be_changed_in_flight():
    made = recipe(*SMALL, "hflip=0")
    ((micro,),) = batches(1)
    before = made._real(micro)
    apply_settings(made, settings(*SMALL, "hflip=0", "rotation=15"))
    assert not torch.equal(made._real(micro), before)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["penalty=10", "critic_norm=batch"],
            (
                'critic_norm: found "batch"; batch normalisation makes the critic\'s score of a'
                " sample depend on the others"
            ),
        ),
        (
            ["penalty=10", "weight_clip=0.1"],
            "weight_clip: found 0.1; with penalty=10 no weight is clipped",
        ),
        (["weight_clip=null"], "nothing else bounds the critic"),
        (["penalty=0"], "penalty: found 0"),
        (["n_critic=0"], "n_critic: found 0"),
        (["spectral_norm=[C]"], 'spectral_norm.0: found "C"'),
        (["optimizer=sgd"], 'optimizer: found "sgd"'),
        (["betas=[0, 1]"], "both must be below 1"),
    ],
)
def test_settings_that_are_refused(words, said):
    with pytest.raises(ConfigError) as caught:
        settings(*words)
    assert said in str(caught.value)


def test_settings_read_back_as_they_were_written():
    for words in (["penalty=10"], ["weight_clip=null", "spectral_norm=[D]"], ["critic_norm=none"]):
        run = settings(*words)
        assert loading.validate(Settings, run.model_dump(mode="json")) == run


# ---- one run, any cluster
