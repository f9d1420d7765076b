"""The waveform system: layers of any length, the settings of the documents, what a step and a
validation do.
"""

import copy
import csv

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from distgan.config import batch_layout, loading
from distgan.core import rng
from distgan.core.clock import Clock
from distgan.core.errors import ConfigError
from distgan.data.dataset import Data
from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.nn.waveform import ConvDown1d, Discriminator1d, ExactConvTranspose1d, Generator1d
from distgan.recipes import waveform
from distgan.recipes._base import apply_settings
from distgan.recipes._catalog import resolve_recipe
from distgan.recipes.waveform import Recipe, Settings

TINY = ["base_filters=4", "base_filters_d=4"]
PAIRS = [
    (kernel, stride) for kernel in (1, 2, 3, 4, 5, 7, 8, 11, 16) for stride in (1, 2, 3, 4, 5, 8)
]


def settings(*words: str) -> Settings:
    return loading.validate(Settings, {"recipe": "waveform", "data": "-"}, list(words))


def recipe(*words: str, frames: int = 128) -> Recipe:
    """In one process, on the CPU."""
    chosen = settings(*TINY, *words)
    torch.manual_seed(0)
    ranks = Ranks(chosen.machine.model_copy(update={"device": "cpu"}), chosen.precision)
    return Recipe(chosen, ranks, batch_layout.fit(chosen.batch, 1, 1, chosen.group), (2, frames))


def micro(count: int = 4, frames: int = 128, first: int = 0, batch: int = 0) -> MicroBatch:
    pairs = rng.normal(5, "pairs", batch, (8, 2, frames))[first : first + count]
    at = np.arange(first, first + count) + 8 * batch
    return MicroBatch(pairs, at, at, slice(first, first + count), batch)


# ---- any length
def test_transposed_convolution_trim_is_never_negative():
    """Audit: `transposed-convolution trim may be negative`.

    Every length from 1 to 5,000, every pair, by the length that torch's layer has.
    """
    frames = np.arange(1, 5001)
    for kernel, stride in PAIRS:
        layer = ExactConvTranspose1d(1, 1, kernel, stride)
        n = -(-frames // stride)
        plain = (
            (n - 1) * stride + kernel + layer.conv.output_padding[0]
        )  # torch's formula, without padding
        assert layer.trim == max(0, kernel - stride) and layer.conv.padding == (0,)
        assert (layer.trim // 2 + frames <= plain).all(), (kernel, stride)


@pytest.mark.parametrize(("kernel", "stride"), PAIRS)
def test_output_length_is_as_asked(kernel, stride):
    down, up = ConvDown1d(1, 1, kernel, stride), ExactConvTranspose1d(1, 1, kernel, stride)
    with torch.no_grad():
        for frames in [*range(1, 40), 255, 256, 257, 1023, 4999, 5000]:
            short = down(torch.zeros(1, 1, frames))
            assert short.shape == (1, 1, -(-frames // stride))
            assert up(short, frames).shape == (1, 1, frames)
    with pytest.raises(ValueError, match=f"{7 * stride + 1} frames out of 7 at stride {stride}"):
        up(torch.zeros(1, 1, 7), 7 * stride + 1)


@pytest.mark.parametrize(("kernel", "stride"), PAIRS)
def test_going_up_is_the_transpose_of_going_down(kernel, stride):
    """<down x, y> = <x, up y> with the same weights.

    So the output lies where the input was, and the trim is taken off the right ends.
    """
    torch.manual_seed(kernel * 100 + stride)
    down, up = (
        ConvDown1d(2, 3, kernel, stride).double(),
        ExactConvTranspose1d(3, 2, kernel, stride).double(),
    )
    with torch.no_grad():
        up.conv.weight.copy_(down.weight)
        for layer in (down, up.conv):
            layer.bias.zero_()
        for frames in (1, 2, 3, 16, 37, 50):
            x, y = (
                torch.randn(1, 2, frames).double(),
                torch.randn(1, 3, -(-frames // stride)).double(),
            )
            torch.testing.assert_close((down(x) * y).sum(), (x * up(y, frames)).sum())


def test_what_no_kernel_reaches_is_the_bias():
    layer = ExactConvTranspose1d(1, 1, 2, 5)
    torch.nn.init.constant_(layer.conv.weight, 1.0)
    torch.nn.init.constant_(layer.conv.bias, 0.25)
    out = layer(torch.tensor([[[1.0, 2.0]]]), 10).flatten()
    assert out.tolist() == [1.25, 1.25, 0.25, 0.25, 0.25, 2.25, 2.25, 0.25, 0.25, 0.25]


@pytest.mark.parametrize(("kernel", "stride"), [(8, 4), (4, 2), (3, 3), (2, 3)])
def test_the_generator_takes_any_length(kernel, stride):
    G = Generator1d(2, 3, kernel, stride)
    with torch.no_grad():
        for frames in [*range(1, 100, 7), 1000, 4999]:
            assert G(torch.zeros(1, 1, frames)).shape == (1, 1, frames)


# ---- the networks
def test_sizes_by_hand():
    G, D = Generator1d(64, 4, 8, 4), Discriminator1d(2, 32, 3, 0.5)
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in (("G", G), ("D", D))}
    down = 8 * (1 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 64 + 128 + 256 + 512
    up = 8 * (512 * 256 + 512 * 128 + 256 * 64 + 128 * 64) + 256 + 128 + 64 + 64
    assert count["G"] == down + up + 7 * 65 + 1
    assert count["D"] == 4 * (2 * 32 + 32 * 64 + 64 * 128) + 32 + 2 * 64 + 2 * 128 + 3 * 128 + 1
    assert G.dropped == [256, 128]
    assert [layer.weight.shape[0] for layer in Generator1d(2, 6, 4, 2).down] == [
        2,
        4,
        8,
        16,
        16,
        16,
    ]


@pytest.mark.parametrize("net", [Generator1d(4, 3, 8, 4), Discriminator1d(1, 4, 3)])
def test_no_sample_depends_on_the_others(net):
    x = torch.randn(5, 1, 96)
    torch.testing.assert_close(net(x)[1:3], net(x[1:3]))
    assert (net(x).std(0) > 0).all()


def test_discriminator_starts_undecided_and_judges_patches():
    D = Discriminator1d(1, 4, 3, 0.5)
    said = D(torch.randn(2, 1, 100))
    assert said.shape == (2, 13) and abs(said.mean() - 0.5) < 0.3
    with torch.no_grad():
        torch.nn.init.zeros_(D.layers[-1].weight)
        assert (D(torch.randn(2, 1, 100)) == 0.5).all()


def test_channel_dropout_leaves_out_whole_channels():
    G = Generator1d(4, 4, 8, 4)
    x = torch.randn(2, 1, 600)
    torch.testing.assert_close(G(x, torch.ones(2, sum(G.dropped))), G(x))
    seen = []
    G.up[1].register_forward_hook(lambda module, args, out: seen.append(args[0]))
    keep = torch.ones(2, sum(G.dropped))
    keep[0, 3] = 0
    G(x, keep)
    assert not seen[0][0, 3].any() and seen[0][1, 3].any() and seen[0][0, 2].any()


# ---- the settings of the documents
def test_the_numbers_of_the_documents():
    rows = {
        "lambda_l1": (100, 10),
        "base_filters": (64, 64),
        "num_layers": (4, 4),
        "base_filters_d": (64, 32),
        "num_layers_d": (4, 3),
        "g_lr": (1e-4, 2e-4),
        "d_lr": (2e-4, 1e-4),
        "real_label": (1.0, 0.9),
        "fake_label": (0.0, 0.1),
        "aug_noise_std": (0.01, 0.02),
        "aug_scale_range": ((0.95, 1.05), (0.9, 1.1)),
        "aug_shift_range": (0.05, 0.1),
        "patience": (15, 20),
        "dropout_rate": (0.3, 0.3),
        "weight_decay": (1e-5, 1e-5),
        "loss": ("lsgan", "lsgan"),
    }
    module, tree = resolve_recipe("waveform-collapsed")
    failing, repaired = loading.validate(module.Settings, {**tree, "data": "-"}), settings()
    assert {name: (getattr(failing, name), getattr(repaired, name)) for name in rows} == rows
    watch = repaired.watch
    assert watch.healthy["d/loss"] == (0.2, 0.7) and (
        watch.d_loss_strong,
        watch.d_loss_collapsed,
        watch.d_loss_weak,
    ) == (0.1, 0.05, 1.0)
    assert (
        watch.stagnant_change,
        watch.stagnant_after,
        watch.gap_healthy,
        watch.gap_high,
        watch.on_trouble,
    ) == (0.01, 5, 0.1, 0.2, "warn")
    assert failing.watch == watch and settings(
        "loss=hinge", "watch.window=9"
    ).watch == watch.model_copy(update={"unbounded": True, "floored": True, "window": 9})


def test_the_guide_leads_from_the_failing_run_to_the_repaired_one():
    module, tree = resolve_recipe("waveform-collapsed")
    values = loading.validate(module.Settings, {**tree, "data": "-"}).model_dump(mode="json")
    moves = values["watch"]["moves"]["d_loss_low"]
    assert {"d_lr", "lambda_l1", "real_label", "fake_label", "base_filters_d", "num_layers_d"} <= {
        move["setting"] for move in moves
    }
    assert {move["setting"] for move in moves if move.get("in_flight") is False} == {
        "base_filters_d",
        "num_layers_d",
    }


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(
        ConfigError,
        match=r"(?s)3 errors.*betas.*below 1.*weight_clip=0.01.*aug_scale_range.*the lower first",
    ):
        settings("betas=[1.0, 0.9]", "aug_scale_range=[1.1, 0.9]", "loss=wgan")
    assert (
        settings("loss=wgan", "weight_clip=0.01").watch.unbounded
        and settings("loss=hinge").watch.unbounded
        and not settings("loss=vanilla").watch.unbounded
    )
    assert (
        settings("loss=vanilla").watch.d_loss_floor == 0.325 and settings().watch.d_loss_floor == 0
    )
    with pytest.raises(ConfigError, match="128 frames are too short for num_layers_d=8"):
        recipe("num_layers_d=8")
    with pytest.raises(ConfigError, match="lambda_stft=1, which need 257"):
        recipe("num_layers_d=2", "lambda_stft=1", "stft_resolutions=[[512,64,256],[64,16,64]]")
    recipe("num_layers_d=2", "lambda_stft=0", "stft_resolutions=[[512,64,256]]")
    with pytest.raises(
        ConfigError, match="windows of 200 frames are asked for, the shortest clip has 128"
    ):
        Data.require(
            type("Held", (), {"kind": "pair", "sample": _pairs(128)})(), settings("segment=200")
        )


def _pairs(length):
    from distgan.data.samples import Pairs

    return Pairs(1000, length, length, ("input.wav", "target.wav"), np.dtype("float32"))


# ---- a step
def test_a_pair_is_scaled_and_shifted_alike_and_noise_is_on_the_input_alone():
    made = recipe("aug_noise_std=0.0", "input_gain=2", "target_gain=5")
    ramp = torch.linspace(1, 2, 128).expand(4, 2, 128).contiguous()
    same = MicroBatch(ramp, np.arange(4), np.arange(4), slice(0, 4), 0)
    given, target = made._augmented(same)
    torch.testing.assert_close(given / 2, target / 5)
    scale = target[:, 0, 64:] / 5 / ramp[:, 1, 64:]
    assert len(scale.mean(1).round(decimals=3).unique()) == 4, (
        "each pair has a scale and a shift of its own"
    )
    loud, clean = recipe("aug_noise_std=0.5", "input_gain=2", "target_gain=5")._augmented(same)
    torch.testing.assert_close(clean, target)
    assert (loud - given).std() == pytest.approx(0.5, rel=0.1)


def test_the_losses_by_hand():
    made = recipe(
        "aug_noise_std=0",
        "aug_scale_range=[1, 1]",
        "aug_shift_range=0",
        "dropout_rate=0",
        "lambda_l1=7",
        "lambda_stft=3",
        "conditional=true",
    )
    batch = micro()
    given, target = (
        batch.real[:, :1] * made.run.input_gain,
        batch.real[:, 1:] * made.run.target_gain,
    )
    fake = made.G.generate(given)
    real_score, fake_score = (
        made.D.module(torch.cat([given, target], 1)),
        made.D.module(torch.cat([given, fake], 1)),
    )
    loss, log = made._d_loss(batch)
    torch.testing.assert_close(
        loss, ((real_score - 0.9) ** 2).mean() + ((fake_score - 0.1) ** 2).mean()
    )
    torch.testing.assert_close(log["real_score"], real_score.mean())
    loss, log = made._g_loss(batch, 0)
    torch.testing.assert_close(log["adversarial"], ((fake_score - 0.9) ** 2).mean())
    torch.testing.assert_close(log["l1"], F.l1_loss(fake, target))
    torch.testing.assert_close(loss, log["adversarial"] + 7 * log["l1"] + 3 * log["stft"])


@pytest.mark.parametrize("loss", ["lsgan", "vanilla", "hinge", "wgan"])
def test_a_step_of_each_loss(loss):
    made = recipe(
        f"loss={loss}",
        "weight_clip=0.01",
        "d_steps=2",
        "g_steps=3",
        "lambda_stft=1",
        "ema=0.9",
        "clip=1.0",
    )
    before = torch.get_rng_state()
    log = made.step([[micro(8, batch=k)] for k in range(2)], Clock(16, 100))
    assert torch.equal(torch.get_rng_state(), before), (
        "nothing may draw from torch's generator: ranks would differ"
    )
    said = ("real_prob", "fake_prob") if loss == "vanilla" else ("real_score", "fake_score")
    assert {
        "d/loss",
        "g/loss",
        "g/adversarial",
        "g/l1",
        "g/stft",
        *(f"d/{name}" for name in said),
    } <= log.keys()
    assert all(torch.isfinite(value) for value in log.values()) and made.run.batches_per_step == 2
    assert (made.D.updates, made.G.updates) == (2, 3)
    assert max(p.detach().abs().max().item() for p in made.D.module.parameters()) <= 0.01


def test_a_micro_batch_more_changes_nothing():
    """Masks and noise are drawn by position.

    The gradient is that of the whole batch, however it is cut.
    """
    made = recipe("precision=float64")
    found = []
    for parts in (
        [micro(8)],
        [micro(4), micro(4, first=4)],
        [micro(2, first=k) for k in (0, 2, 4, 6)],
    ):
        for player, loss in ((made.G, lambda part: made._g_loss(part, 0)), (made.D, made._d_loss)):
            player.module.zero_grad()
            for part in parts:
                (loss(part)[0] / len(parts)).backward()
        found.append(
            [p.grad.clone() for player in (made.G, made.D) for p in player.module.parameters()]
        )
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_dropout_masks_differ_between_the_updates_of_a_step_and_have_the_rate(monkeypatch):
    made, asked = recipe("dropout_rate=0.25", "g_steps=2"), []
    keep = made._dropout_mask
    monkeypatch.setattr(
        made, "_dropout_mask", lambda part, purpose: asked.append(purpose) or keep(part, purpose)
    )
    made.step([[micro(8)]], Clock(8, 100))
    assert asked == ["dropout/d", "dropout/g/0", "dropout/g/1"]
    masks = [
        made._dropout_mask(micro(8), purpose)
        for purpose in ("dropout/d", "dropout/g/0", "dropout/g/1")
    ]
    assert not any(torch.equal(a, b) for a, b in zip(masks, masks[1:] + masks[:1], strict=True))
    many = torch.cat([made._dropout_mask(micro(8, batch=k), "dropout/d") for k in range(20)])
    assert set(many.unique().tolist()) == {
        0.0,
        torch.tensor(1 / 0.75).item(),
    } and many.mean() == pytest.approx(1, abs=0.02)


def test_settings_can_be_changed_in_flight():
    made = recipe()
    apply_settings(
        made,
        settings(
            *TINY,
            "g_lr=5e-5",
            "d_lr=2.5e-5",
            "weight_decay=5e-5",
            "real_label=0.8",
            "lambda_l1=5",
            "dropout_rate=0.5",
            "aug_noise_std=0.03",
            "g_steps=2",
        ),
    )
    log = made.step([[micro(8)]], Clock(8, 100))
    assert (float(log["g/lr"]), float(log["d/lr"])) == (pytest.approx(5e-5), pytest.approx(2.5e-5))
    assert {
        group["weight_decay"]
        for player in made.players.values()
        for group in player.engine.optimizer.param_groups
    } == {5e-5}
    torch.testing.assert_close(log["g/loss"], log["g/adversarial"] + 5 * log["g/l1"])
    assert made.G.updates == 2 and (
        made._dropout_mask(micro(8), "x") == 0
    ).float().mean() == pytest.approx(0.5, abs=0.1)


# ---- what is said of held-out pairs
def state(player):
    return {name: value.clone() for name, value in player.module.state_dict().items()} | {
        "training": torch.tensor(player.module.training)
    }


def test_validation_includes_the_gan_loss_without_touching_the_discriminator(pulses, monkeypatch):
    """Audit: `validation without GAN loss`.

    And `last, incomplete validation batch biased the mean`: 6 pairs in chunks of 4 and 2.
    """
    made, data = recipe("ema=0.5", "lambda_stft=1"), Data(str(pulses))
    made.step([[micro(8)]], Clock(8, 100))
    before = {name: state(player) for name, player in made.players.items()}
    monkeypatch.setattr(waveform, "CHUNK", 4)
    found = made.validate(data)
    for name, player in made.players.items():
        after = state(player)
        assert all(torch.equal(value, before[name][key]) for key, value in after.items())
        assert all(
            p.grad is None or name == "G" or p.requires_grad for p in player.module.parameters()
        )
    pairs = data.decode(data.validation, range(6))
    given, target = pairs[:, :1] * made.run.input_gain, pairs[:, 1:] * made.run.target_gain
    with torch.no_grad():
        output = copy.deepcopy(made.G.ema)(given)
        real, fake = made.D.module(target), made.D.module(output)
    assert found["valid/l1"] == pytest.approx((output - target).abs().mean().item(), rel=1e-6)
    assert found["valid/adversarial"] == pytest.approx(((fake - 0.9) ** 2).mean().item(), rel=1e-6)
    assert found["valid/d_loss"] == pytest.approx(
        (((real - 0.9) ** 2).mean() + ((fake - 0.1) ** 2).mean()).item(), rel=1e-6
    )
    assert {"valid/stft", "valid/real_score", "valid/fake_score"} <= found.keys()
    assert "valid/si_sdr" not in found and found["valid/g_loss"] == pytest.approx(
        found["valid/adversarial"] + 10 * found["valid/l1"] + found["valid/stft"], rel=1e-6
    )


def test_validation_has_what_it_is_judged_by(pulses):
    made = recipe("best_by=stft+lsd-0.1*si_sdr", "stft_resolutions=[[32,8,32]]")
    found = made.validate(Data(str(pulses)))
    assert made.run.judge.missing(found) == []
    # Neither is in the loss, and so in no total of it.
    assert found["valid/g_loss"] == pytest.approx(
        found["valid/adversarial"] + 10 * found["valid/l1"], rel=1e-6
    )
    with pytest.raises(ConfigError, match="need 257"):
        recipe("best_by=stft", "stft_resolutions=[[512,128,512]]")


@pytest.mark.gate
def test_results_have_every_held_out_pair(pulses, tmp_path):
    made, data = recipe(), Data(str(pulses))
    made.show(data, tmp_path / "00000000.png")
    made.results(data, Ranks(made.run.machine.model_copy(update={"device": "cpu"})), tmp_path)
    rows = list(csv.DictReader((tmp_path / "measures.csv").read_text().splitlines()))
    assert [row["key"] for row in rows] == [data.validation.key(i) for i in range(6)] and {
        row["frames"] for row in rows
    } == {"128"}
    mean = np.mean([float(row["l1"]) for row in rows])
    assert mean * made.run.target_gain == pytest.approx(made.validate(data)["valid/l1"], rel=1e-4)
    pairs = data.decode(data.validation, range(6)).numpy()
    np.testing.assert_allclose(
        [float(row["input_l1"]) for row in rows],
        np.abs(pairs[:, 0] - pairs[:, 1]).mean(1),
        rtol=1e-4,
    )
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "00000000.png",
        "overlay-00.png",
        "overlay-01.png",
    ]


# ---- the documents' story, in a few minutes: docs/waveform.md has the whole of it
