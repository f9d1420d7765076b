"""The timbre system: its networks, its settings, a step, and runs that are one run however they are
started.
"""

import copy
import csv
import json

import numpy as np
import pytest
import shard_sets
import soundfile
import torch
from safetensors.torch import load, save

from distgan.config import batch_layout, loading
from distgan.core.clock import Clock
from distgan.core.errors import ConfigError, DataError
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.metrics.audio import log_spectral_distance, si_sdr
from distgan.metrics.stft import stft_distance
from distgan.nn.spectrogram import MultiResolutionDiscriminator, Repair
from distgan.recipes._base import apply_settings
from distgan.recipes.timbre import Recipe, Settings
from distgan.shards.codecs import audio as audio_codec

RESOLUTIONS = ((64, 16, 64), (32, 8, 24))
SMALL = [
    "g_width=4",
    "g_fft=64",
    "g_hop=16",
    "d_width=2",
    f"stft_resolutions={json.dumps(RESOLUTIONS)}",
    "segment_length=256",
    "batch=6",
    "ema=0.5",
    "g_lr=1e-2",
    "d_lr=5e-3",
]
TRAIN = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 pairs of 400 frames to train on, 5 held out."""
    return shard_sets.damaged(tmp_path_factory.mktemp("damaged") / "set", TRAIN)


def settings(*words: str) -> Settings:
    return loading.validate(Settings, {"recipe": "timbre", "data": "-"}, [*SMALL, *words])


def recipe(*words: str, frames: int = 400, ranks: int = 1) -> Recipe:
    """In one process, on the CPU, in float64."""
    chosen = settings("machine.device=cpu", "precision=float64", *words)
    torch.manual_seed(0)
    return Recipe(
        chosen,
        Ranks(chosen.machine, chosen.precision),
        batch_layout.fit(chosen.batch, ranks, 1),
        (2, frames),
    )


def micro(data: Data, numbers, at: int = 0) -> MicroBatch:
    """These training pairs, cut from their beginning, as if they stood at `at` in the stream."""
    numbers = np.asarray(numbers)
    return MicroBatch(
        data.decode(data.train, numbers.tolist(), 256),
        numbers + at,
        numbers + at,
        slice(0, len(numbers)),
        0,
    )


def state_of(player) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in player.tensors().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stir(net: torch.nn.Module) -> torch.nn.Module:
    """Weights as after some training: all of them away from where they start."""
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return net


# ---- networks
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_untrained_generator_gives_back_what_it_is_given(dtype):
    net = Repair(8, 512, 128).to(dtype)
    given = 0.3 * torch.randn(3, 5001, dtype=dtype)
    torch.testing.assert_close(net(given), given, rtol=0, atol=1e-6)


def test_the_generator_never_needs_a_length():
    net = stir(Repair(2, 64, 16))
    for frames in [*range(1, 200), 1000, 4999]:
        given = torch.randn(1, frames)
        repaired = net(given)
        assert repaired.shape == given.shape and torch.isfinite(repaired).all()


def test_samples_of_a_batch_do_not_meet():
    G, D = (
        stir(Repair(4, 64, 16)).double(),
        stir(MultiResolutionDiscriminator(2, RESOLUTIONS)).double(),
    )
    given = torch.randn(4, 300, dtype=torch.float64)
    for net in (G, D):
        torch.testing.assert_close(net(given)[1:3], net(given[1:3]), rtol=1e-12, atol=1e-12)


def test_silence_stays_silent_and_has_a_gradient():
    G, D = stir(Repair(4, 64, 16)), MultiResolutionDiscriminator(2, RESOLUTIONS)
    given = torch.zeros(2, 300, requires_grad=True)
    repaired = G(given)
    D(repaired).mean().backward()
    assert not repaired.any() and torch.isfinite(given.grad).all()


def test_weight_norm_is_removed_without_a_trace():
    """Twice, from a copy: the original is trained on, and a deep copy would share its classes."""
    net = stir(Repair(4, 64, 16))
    given, trained = torch.randn(2, 300), copy.deepcopy(net)
    for _ in range(2):
        plain = net.plain()
        assert not any("parametrizations" in name for name in plain.state_dict())
        assert not any("Parametrized" in type(module).__name__ for module in plain.modules())
        torch.testing.assert_close(plain(given), net(given), rtol=0, atol=1e-6)
    normed = [name for name in net.state_dict() if name.endswith("weight.original0")]
    assert len(normed) == 15 and sum(name.endswith("weight") for name in net.state_dict()) == 1, (
        "all but the head"
    )
    net(given).sum().backward()
    torch.testing.assert_close(trained(given), net(given), rtol=0, atol=0)


def test_normed_weights_go_through_copies_files_and_averages():
    made = recipe("ema=0.9")
    stir(made.G.module)
    tensors = load(save({name: value.contiguous() for name, value in made.G.tensors().items()}))
    other = recipe("ema=0.9")
    other.G.load(tensors, made.G.state())
    given = torch.randn(2, 300, dtype=torch.float64)
    assert torch.equal(other.G.module(given), made.G.module(given)) and not torch.equal(
        other.G.ema(given), made.G.module(given)
    )
    for name, weight in made.G.ema.named_parameters():
        assert not weight.requires_grad, name


def test_no_network_has_batch_statistics():
    made = recipe()
    assert not any(
        player.module.state_dict().keys() & {"running_mean"}
        or any("running" in name for name in player.module.state_dict())
        for player in made.players.values()
    )
    assert not any(
        "Norm" in type(module).__name__ and "WeightNorm" not in type(module).__name__
        for module in made.G.module.modules()
    )


# ---- settings
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["segment_length=300", "save_segment_length=299"],
            "save_segment_length: found 299; less than segment_length=300, which is cut out",
        ),
        (
            ["segment_length=32"],
            "segment_length: found 32; too short for an FFT of 64, which wants more than 32 frames",
        ),
        (["stft_resolutions=[[64, 65, 64]]"], "the hop is at most the window"),
        (["stft_resolutions=[[64, 16, 65]]"], "the window at most the FFT"),
        (["gain=[1.0, 0.8]"], "the lower first"),
        (["g_hop=33"], "at most half of g_fft=64"),
        (["lambda_l1=0", "lambda_stft=0"], "nothing to learn"),
        (["epochs=4"], "ends at epochs=4, before its GAN loss starts"),
        (["g_hop=128", "g_fft=128"], "at most half of g_fft=128"),
        (["stft_resolutions=[[1024, 16, 64]]"], "segment_length: found 256; too short"),
        (["betas=[0.5, 1.0]"], "must be below 1"),
        (["polarity=1.5"], "polarity"),
        (["gan_loss=hing"], "gan_loss"),
    ],
)
def test_settings_that_do_not_fit_are_refused(words, said):
    with pytest.raises(ConfigError) as caught:
        settings(*words)
    assert said in str(caught.value)


def test_defaults_that_do_not_fit_what_is_given_are_refused_too():
    for word in ("g_fft=128", "stft_resolutions=[[65536, 16, 64]]", "epochs=5"):
        with pytest.raises(ConfigError, match="found (128|16000|5)"):
            loading.validate(Settings, {"recipe": "timbre", "data": "-"}, [word])


def test_a_run_without_a_gan_may_be_short():
    assert settings("epochs=1", "lambda_adversarial=0").epochs == 1


def test_defaults():
    run = loading.validate(Settings, {"recipe": "timbre", "data": "-"}, [])
    assert (run.gan_start_epoch, run.gain, run.polarity, run.judged_by, run.kind, run.crop) == (
        5,
        (0.8, 1.0),
        0,
        "valid/stft",
        "pair",
        16000,
    )


# ---- a step
def test_before_the_gan_starts_only_reconstruction_is_learned(folder):
    made, data = recipe(), Data(str(folder))
    before = state_of(made.D)
    log = made.step([[micro(data, range(6))]], Clock(6, TRAIN))
    assert log.keys() == {
        f"g/{name}" for name in ("loss", "l1", "stft", "grad_norm", "lr", "skipped")
    }
    assert log["g/loss"].item() == pytest.approx(50 * log["g/l1"].item() + log["g/stft"].item())
    assert same(before, state_of(made.D)) and made.D.updates == 0 and made.G.updates == 1
    log = made.step([[micro(data, range(6))]], Clock(6, TRAIN, step=5 * TRAIN // 6))
    assert {"d/loss", "d/real_score", "d/fake_score", "g/adversarial"} < log.keys()
    assert log["g/loss"].item() == pytest.approx(
        50 * log["g/l1"].item() + log["g/stft"].item() + 0.1 * log["g/adversarial"].item()
    )
    assert not same(before, state_of(made.D)) and made.D.updates == 1


def test_watch_knows_the_loss_and_a_d_that_nothing_bounds_is_refused():
    assert settings("gan_loss=hinge").watch.unbounded and not settings().watch.unbounded
    assert (
        settings("gan_loss=vanilla", "real_label=0.9", "fake_label=0.1").watch.d_loss_floor == 0.325
        and settings("gan_loss=vanilla").watch.d_loss_floor == 0
    )
    with pytest.raises(ConfigError, match="nothing bounds D here"):
        settings("gan_loss=wgan")


@pytest.mark.parametrize("mode", ["lsgan", "vanilla", "hinge"])
def test_every_gan_loss_steps(mode, folder):
    made = recipe(f"gan_loss={mode}", "gan_start_epoch=0")
    log = made.step([[micro(Data(str(folder)), range(6))]], Clock(6, TRAIN))
    assert all(torch.isfinite(value) for value in log.values())
    assert ("d/real_prob" in log) == (mode == "vanilla") != ("d/real_score" in log)


def test_weights_of_zero_switch_a_loss_off(folder):
    data = Data(str(folder))
    for words, due in ((["lambda_l1=0"], "g/stft"), (["lambda_stft=0", "lambda_l1=1"], "g/l1")):
        log = recipe(*words).step([[micro(data, range(6))]], Clock(6, TRAIN))
        assert log["g/loss"].item() == pytest.approx(log[due].item())
    made = recipe("lambda_adversarial=0")
    made.step([[micro(data, range(6))]], Clock(6, TRAIN, step=100))
    assert made.D.updates == 0


@pytest.mark.parametrize(
    "words", [[], ["diffaugment=[gain, shift, mask, noise]"]], ids=["plain", "diffaugment"]
)
def test_micro_batches_give_the_gradient_of_the_whole(words, folder):
    data, ends = Data(str(folder)), []
    for parts in ([range(6)], [range(3), range(3, 6)]):
        made = recipe("gan_start_epoch=0", f"machine.accumulation={len(parts)}", *words)
        for _ in range(3):
            made.step([[micro(data, part) for part in parts]], Clock(6, TRAIN))
        ends.append(
            state_of(made.G) | {f"D.{name}": value for name, value in state_of(made.D).items()}
        )
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-7, atol=1e-10, msg=name)


def test_diffaugment_changes_what_d_sees_in_both_updates_and_nothing_else(folder):
    data, seen = Data(str(folder)), {}
    for words in ([], ["diffaugment=[gain]"]):
        made, calls = recipe("gan_start_epoch=0", *words), []
        made.D.module.register_forward_pre_hook(
            lambda module, args, calls=calls: calls.append(args[0].detach())
        )
        log = made.step([[micro(data, range(6))]], Clock(6, TRAIN))
        seen[bool(words)] = (*calls[0].chunk(2), calls[1], log["g/l1"])
    for plain, changed in zip(seen[False][:3], seen[True][:3], strict=True):
        factors = (changed * plain).sum(1) / plain.square().sum(1)
        torch.testing.assert_close(changed, factors[:, None] * plain)
        assert factors.min() >= 0.5 and factors.max() <= 2 and factors.std() > 0.1
    assert seen[False][3] == seen[True][3], "the reconstruction is not changed"


def test_settings_changed_in_flight_are_taken_over(folder):
    made, data = recipe("gan_start_epoch=0"), Data(str(folder))
    made.step([[micro(data, range(6))]], Clock(6, TRAIN))
    apply_settings(
        made,
        settings(
            "machine.device=cpu", "g_lr=1e-3", "d_lr=2e-3", "lambda_l1=3", "gan_start_epoch=0"
        ),
    )
    log = made.step([[micro(data, range(6))]], Clock(6, TRAIN))
    assert log["g/lr"].item() == pytest.approx(1e-3) and log["d/lr"].item() == pytest.approx(2e-3)
    assert log["g/loss"].item() == pytest.approx(
        3 * log["g/l1"].item() + log["g/stft"].item() + 0.1 * log["g/adversarial"].item()
    )


# ---- validation, pictures, results
def test_validation_is_what_is_computed_pair_by_pair(folder):
    made, data = recipe("gan_start_epoch=0", "ema=null"), Data(str(folder))
    made.step([[micro(data, range(6))]], Clock(6, TRAIN))
    found, rows = made.validate(data), []
    for i in range(5):
        given, target = transforms.to_waves(
            data.decode(data.validation, [i]), torch.float64
        ).unbind(1)
        with torch.no_grad():
            repaired = made.G.module(given)
            score = made.D.module(repaired)
            real = made.D.module(target)
        rows.append(
            {
                "l1": (repaired - target).abs().mean(),
                "stft": stft_distance(repaired, target, RESOLUTIONS).mean(),
                "si_sdr": si_sdr(repaired, target).mean(),
                "lsd": log_spectral_distance(repaired, target, 8000).mean(),
                "input_si_sdr": si_sdr(given, target).mean(),
                "input_stft": stft_distance(given, target, RESOLUTIONS).mean(),
                "adversarial": (score - 1).square().mean(),
                "d_loss": (real - 1).square().mean() + score.square().mean(),
            }
        )
        weights = {"l1": made.run.lambda_l1, "stft": made.run.lambda_stft, "adversarial": 0.1}
        rows[-1]["g_loss"] = sum(weight * rows[-1][name] for name, weight in weights.items())
    for name in rows[0]:
        assert found[f"valid/{name}"] == pytest.approx(
            np.mean([row[name].item() for row in rows]), rel=1e-9
        ), name


def test_the_validation_of_clips_of_different_lengths_counts_each_once(tmp_path):
    data = Data(
        str(shard_sets.damaged(tmp_path / "set", 2, held_out=3, frames=[400, 400, 300, 500, 900]))
    )
    made = recipe(frames=300)
    alone = []
    for i in range(3):
        given, target = transforms.to_waves(
            data.decode(data.validation, [i]), torch.float64
        ).unbind(1)
        alone.append((given - target).abs().mean().item())
    assert made.validate(data)["valid/input_l1"] == pytest.approx(np.mean(alone), rel=1e-12)


def test_a_silent_target_takes_no_part_in_validation(folder, monkeypatch):
    made, data = recipe(), Data(str(folder))
    pairs = [
        transforms.to_waves(data.decode(data.validation, [i]), torch.float64).unbind(1)
        for i in range(3)
    ]
    monkeypatch.setattr(
        made,
        "_held_out",
        lambda data: iter(
            [(torch.cat([given for given, _ in pairs]), torch.cat([target for _, target in pairs]))]
        ),
    )
    whole = made.validate(data)
    silence = torch.zeros_like(pairs[0][1])
    monkeypatch.setattr(
        made,
        "_held_out",
        lambda data: iter([*pairs[:2], (pairs[0][0], silence), pairs[2], (silence, silence)]),
    )
    found = made.validate(data)
    assert found.pop("valid/silent") == 2 and found == pytest.approx(whole, rel=1e-12)
    monkeypatch.setattr(made, "_held_out", lambda data: iter([(silence, silence)]))
    with pytest.raises(DataError, match="all held-out pairs is silent"):
        made.validate(data)


@pytest.mark.gate
def test_pictures_come_with_sound(folder, tmp_path):
    made, data = recipe(), Data(str(folder))
    made.show(data, tmp_path / "00000012.png")
    keys = [data.validation.key(i) for i in (0, 1, 3)]
    assert {path.name for path in tmp_path.iterdir()} == {"00000012.png"} | {
        f"00000012.{key}.{what}.wav" for key in keys for what in ("before", "after", "clean")
    }
    before, clean = transforms.to_waves(data.decode(data.validation, [1]))[0].numpy()
    for what, due in (("before", before), ("clean", clean), ("after", before)):
        sound, rate = soundfile.read(tmp_path / f"00000012.{keys[1]}.{what}.wav", dtype="float32")
        assert rate == 8000 and len(sound) == 400
        np.testing.assert_allclose(sound, due, atol=1e-4)
    made.show(data, tmp_path / "00000024.png")
    assert (tmp_path / "00000012.png").read_bytes() == (tmp_path / "00000024.png").read_bytes()


@pytest.mark.gate
def test_results_hold_measures_of_all_and_sound_of_some(folder, tmp_path):
    made, data = recipe("ema=null"), Data(str(folder))
    made.step([[micro(data, range(6))]], Clock(6, TRAIN))
    made.results(data, Ranks(made.run.machine), tmp_path)
    with open(tmp_path / "measures.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == [data.validation.key(i) for i in range(5)]
    valid = made.validate(data)
    for name in ("l1", "stft", "si_sdr", "lsd", "input_si_sdr", "input_lsd"):
        assert np.mean([float(row[name]) for row in rows]) == pytest.approx(
            valid[f"valid/{name}"], rel=1e-3
        )
    assert (tmp_path / "spectrograms.png").stat().st_size > 1000
    assert "level 0-500 Hz" in rows[0] and "input_level 2000-4000 Hz" in rows[0]
    for key in (row["key"] for row in rows):
        assert audio_codec.load(tmp_path / f"{key}.after.wav")[0].shape == (400,)
    made.step(
        [[micro(data, range(6))]], Clock(6, TRAIN)
    )  # the network that was copied for inference can still be trained
