"""Each finding of the audit of a timbre-repair system is a requirement here, and a test: one for
each row of its table, on tiny data.

Other files hold the same at more length: test_shards_timbre, test_align, test_audit_pairs,
test_batches, test_clock, test_timbre.
"""

import json
from argparse import Namespace

import numpy as np
import pytest
import shard_sets
import soundfile
import torch
from torch import nn
from torch.nn.utils import parametrize

from distgan.config import batch_layout, loading
from distgan.core.clock import Clock, step_decay
from distgan.core.errors import ConfigError
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.data.loader import MicroBatch, Stream
from distgan.distributed.ranks import Ranks
from distgan.nn.spectrogram import Repair
from distgan.nn.waveform import ExactConvTranspose1d
from distgan.recipes.timbre import Recipe, Settings
from distgan.shards.audio import align, corpus, degrade, denoise
from distgan.shards.audit import pairs as audit_pairs
from distgan.shards.build import command as build_command
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.format.index import load_json
from distgan.shards.format.reader import ShardSet
from distgan.shards.sources import timbre

CPU = torch.device("cpu")
SMALL = [
    "g_width=4",
    "g_fft=64",
    "g_hop=16",
    "d_width=2",
    "stft_resolutions=[[64, 16, 64]]",
    "segment_length=256",
    "batch=6",
    "machine.device=cpu",
    "precision=float64",
]
OPTIONS = {
    "speech": None,
    "noise": None,
    "rirs": None,
    "n": 8,
    "seed": 0,
    "voice": "formant",
    "rate": 16000,
    "save_segment_length": 0.4,
    "segment_length": 0.3,
    "snr": [-5.0, 20.0],
    "reverb": 0.5,
    "denoiser": "erb",
    "weights": None,
    "max_delay": 0.02,
}


@pytest.fixture(autouse=True)
def short_babble(monkeypatch):
    monkeypatch.setattr(corpus, "BABBLE_VOICES", 2)
    monkeypatch.setattr(corpus, "BABBLE_S", 0.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    """24 pairs of 400 frames, and 5 held out: one less than a whole chunk."""
    return Data(str(shard_sets.damaged(tmp_path_factory.mktemp("damaged") / "set", 24)))


def recipe(*words: str, frames: int = 400) -> Recipe:
    run = loading.validate(Settings, {"recipe": "timbre", "data": "-"}, [*SMALL, *words])
    torch.manual_seed(0)
    return Recipe(
        run, Ranks(run.machine, run.precision), batch_layout.fit(run.batch, 1, 1), (2, frames)
    )


def batch(data: Data, first: int = 0) -> list[list[MicroBatch]]:
    numbers = np.arange(first, first + 6)
    return [
        [
            MicroBatch(
                data.decode(data.train, numbers.tolist(), 256), numbers, numbers, slice(0, 6), 0
            )
        ]
    ]


def source(**changes) -> timbre.Source:
    made = timbre.Source(Namespace(**{**OPTIONS, **changes}))
    made.check(1)
    return made


# ---- "validation data was split among ranks"
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_training_is_split_among_ranks_and_validation_never(ranks, data):
    layout = batch_layout.fit(6, ranks, 1)
    seen = [
        next(iter(Stream(data, 0, layout, rank, CPU, crop=256)))[0].positions.tolist()
        for rank in range(ranks)
    ]
    assert sorted(sum(seen, [])) == list(range(6)) and {len(one) for one in seen} == {6 // ranks}
    made, asked = recipe(), []
    made.G.ema.register_forward_pre_hook(lambda module, args: asked.append(len(args[0])))
    made.validate(data)
    assert sum(asked) == len(data.validation) == 5, "what rank 0 computes is all of it"


# ---- "configuration not checked"
def test_what_is_stored_must_hold_what_is_cut_out(data):
    for word in (
        "save_segment_length=255",
        "segment_length=32",
        "g_hop=40",
        "gain=[1.0, 0.8]",
        "epochs=5",
    ):
        with pytest.raises(
            ConfigError, match=word.partition("=")[0] if word != "epochs=5" else "gan_start_epoch"
        ):
            recipe(word)
    with pytest.raises(
        ConfigError,
        match="save_segment_length: 401 frames are asked for, the shortest stored pair has 400",
    ):
        recipe("save_segment_length=401")
    with pytest.raises(
        ConfigError, match="windows of 401 frames are asked for, the shortest clip has 400"
    ):
        data.require(recipe("segment_length=401").run)
    with pytest.raises(
        ConfigError, match=r"--save-segment-length 0.2 is shorter than --segment-length 0.3"
    ):
        timbre.Source(Namespace(**{**OPTIONS, "save_segment_length": 0.2}))


# ---- "old AMP and weight-norm APIs"
def test_weight_norm_is_a_parametrization_and_can_be_removed():
    net = Repair(4, 64, 16)
    nn.init.normal_(net.head.weight)
    layers = [
        module
        for module in net.modules()
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and module is not net.head
    ]
    assert len(layers) == 15 and all(
        parametrize.is_parametrized(layer, "weight") for layer in layers
    )
    assert not any(hook for layer in layers for hook in layer._forward_pre_hooks), (
        "the old weight norm is a hook"
    )
    given, plain = torch.randn(2, 100), net.plain()
    assert not any(parametrize.is_parametrized(module) for module in plain.modules())
    torch.testing.assert_close(plain(given), net(given), rtol=0, atol=1e-6)


def test_amp_is_that_of_torch_amp(monkeypatch, data):
    """With a type of device; `torch.cuda.amp` would warn, and on a CPU do nothing."""
    asked = []
    autocast = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda *args: asked.append(args) or autocast(*args))
    made = recipe("precision=bf16", "gan_start_epoch=0")
    log = made.step(batch(data), Clock(6, 24))
    assert set(asked) == {("cpu", torch.bfloat16)} and torch.isfinite(log["g/loss"])
    assert isinstance(recipe("precision=fp16").G.engine._scaler, torch.amp.GradScaler)


# ---- "validation share 2 %"
@pytest.mark.gate
def test_the_split_is_5_to_10_percent_by_recording(tmp_path):
    assert (
        build_command.main(
            [
                "timbre",
                str(tmp_path / "out"),
                "--n",
                "60",
                "--voice",
                "formant",
                "--save-segment-length",
                "0.2",
                "--segment-length",
                "0.1",
                "--max-delay",
                "0.02",
                "--workers",
                "1",
            ]
        )
        == 0
    )
    parts = [ShardSet(tmp_path / "out" / part) for part in ("train", "validation")]
    recordings = [
        {json.loads(part[i]["json"])["speech"] for i in range(len(part))} for part in parts
    ]
    assert not recordings[0] & recordings[1] and len(recordings[0] | recordings[1]) == 30
    assert 0.05 <= len(parts[1]) / 60 <= 0.1
    assert load_json(tmp_path / "out/dataset.json")["samples"] == {
        "train": len(parts[0]),
        "validation": len(parts[1]),
    }


# ---- "GAN started at epoch 3"
def test_before_gan_start_epoch_only_reconstruction_is_learned(data):
    made = recipe()
    assert made.run.gan_start_epoch == 5
    weights = {name: value.clone() for name, value in made.D.module.state_dict().items()}
    log = made.step(batch(data), Clock(6, 24, step=19))  # epoch 4.75
    assert not [name for name in log if name.startswith("d/") or "adversarial" in name]
    assert all(
        torch.equal(value, weights[name]) for name, value in made.D.module.state_dict().items()
    )
    log = made.step(batch(data), Clock(6, 24, step=20))  # epoch 5
    assert "d/loss" in log and "g/adversarial" in log
    assert not all(
        torch.equal(value, weights[name]) for name, value in made.D.module.state_dict().items()
    )


# ---- "transposed-convolution trim may be negative"
@pytest.mark.parametrize(
    ("kernel", "stride"), [(1, 1), (4, 2), (3, 2), (2, 2), (16, 8), (7, 4), (3, 4), (2, 5), (1, 8)]
)
def test_the_output_is_as_long_as_asked_for(kernel, stride):
    up = ExactConvTranspose1d(1, 1, kernel, stride)
    assert up.trim == max(0, kernel - stride)
    with torch.no_grad():
        for frames in range(1, 5001):
            assert up(torch.zeros(1, 1, -(-frames // stride)), frames).shape == (1, 1, frames)


@pytest.mark.gate
def test_the_generator_gives_as_many_frames_as_it_takes():
    net = Repair(1, 64, 32).plain()
    with torch.no_grad():
        for frames in range(1, 5001):
            assert net(torch.ones(1, frames)).shape == (1, frames)


# ---- "validation without GAN loss"
def test_validation_computes_the_gan_loss_and_leaves_d_as_it_is(data):
    made = recipe()
    assert not [name for name in made.validate(data) if "adversarial" in name], (
        "before it has started there is none"
    )
    made.step(batch(data), Clock(6, 24, step=20))
    before = {name: value.clone() for name, value in made.D.tensors().items()}
    optimizer = {
        number: {name: torch.as_tensor(value).clone() for name, value in row.items()}
        for number, row in made.D.engine.optimizer_state().items()
    }
    found = made.validate(data)
    assert {"valid/l1", "valid/stft", "valid/adversarial"} <= found.keys()
    assert (
        all(torch.equal(value, before[name]) for name, value in made.D.tensors().items())
        and made.D.module.training
    )
    assert all(
        torch.equal(torch.as_tensor(value), optimizer[number][name])
        for number, row in made.D.engine.optimizer_state().items()
        for name, value in row.items()
    )
    assert all(p.requires_grad for p in made.D.module.parameters()) and found == made.validate(data)


# ---- "delay of the denoiser found by a plain global dot product"
def test_noisy_pairs_align_where_a_dot_product_does_not():
    """In a live room with noise.

    The reverberation's build-up pulls the plain correlation, not GCC-PHAT.
    """
    wrong = 0
    for k in range(6):
        rng = np.random.default_rng(k)
        clean = corpus.spoken("formant", 0, "speech", k, k, 16000, 32000)
        heard = degrade.mix(
            clean,
            degrade.noise("pink", rng, 32000, 16000),
            5.0,
            16000,
            degrade.room(rng, 16000, 0.6, -12.0),
        ).noisy
        late = align.advance(heard, -137)
        assert abs(align.estimate(clean, late, 400).samples - 137) < 1
        wrong += (
            abs(int(np.argmax(np.correlate(late[400:-400], clean, "valid")[::-1])) - 400 - 137) > 20
        )
    assert wrong >= 1, "the plain way would do as well, and this test would show nothing"


# ---- "random crop after alignment broke the alignment"
@pytest.mark.parametrize(
    ("crop", "resident"),
    [(100, 0), (300, 0), (100, 1 << 20)],
    ids=["a part is read", "the whole is read", "in memory"],
)
def test_both_members_of_a_pair_are_cut_at_one_place(crop, resident, tmp_path):
    """The target is the input's negative, so what is left of their sum is what was cut apart."""
    ramps = Data(str(shard_sets.pairs(tmp_path / "set", 12, frames=400)))
    stream, starts = (
        iter(
            Stream(ramps, 0, batch_layout.fit(6, 1, 1), 0, CPU, crop=crop, resident_bytes=resident)
        ),
        set(),
    )
    for _ in range(8):
        (micro,) = next(stream)
        assert micro.real.shape == (6, 2, crop) and not (micro.real[:, 0] + micro.real[:, 1]).any()
        starts |= set((micro.real[:, 0, 0] % 100).tolist())
    assert len(starts) > 10


# ---- "impulse responses reloaded for each file"
def test_impulse_responses_are_read_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for k in range(2):
        soundfile.write(
            tmp_path / f"{k}.wav", degrade.room(rng, 16000, 0.2, 3.0), 16000, subtype="FLOAT"
        )
    read, load = [], audio_codec.load
    monkeypatch.setattr(
        audio_codec, "load", lambda path, rate: read.append(str(path)) or load(path, rate)
    )
    made = source(rirs=str(tmp_path), reverb=1.0)
    made.make_batch(list(range(8)))
    made.make_batch(list(range(4)))
    assert sorted(read) == [str(tmp_path / "0.wav"), str(tmp_path / "1.wav")]


# ---- "noise argument sometimes a list, sometimes an array"
def test_noise_is_one_type(tmp_path):
    soundfile.write(
        tmp_path / "short.wav", 0.1 * np.random.default_rng(0).standard_normal(500), 16000
    )
    soundfile.write(
        tmp_path / "stereo.wav", 0.1 * np.random.default_rng(1).standard_normal((9000, 2)), 22050
    )
    for noise in (
        corpus.RecordedNoise(tmp_path, ["short.wav", "stereo.wav"], 16000),
        corpus.SyntheticNoise("formant", 0, 16000),
    ):
        for k in range(8):
            name, sound = noise.draw(np.random.default_rng(k), 4000)
            assert (
                isinstance(name, str)
                and type(sound) is np.ndarray
                and sound.dtype == np.float32
                and sound.shape == (4000,)
            )


# ---- "gain 0.5-1.0 and polarity inversion too strong"
def test_gain_is_mild_common_to_both_and_nothing_is_turned_over(data):
    made = recipe()
    assert made.run.gain == (0.8, 1.0) and made.run.polarity == 0
    ((micro,),) = batch(data)
    plain = transforms.to_waves(micro.real, torch.float64)
    factors = torch.stack(made._pair(micro), 1) / plain
    factors = factors.nan_to_num(nan=-1).flatten(1)
    each = factors.max(1).values
    assert 0.8 <= each.min() and each.max() <= 1.0 and each.max() - each.min() > 0.02
    assert (((factors - each[:, None]).abs() < 1e-9) | (factors == -1)).all(), (
        "the same for both, and never negative"
    )


# ---- "no check of the pairs"
def test_pairs_that_are_no_good_are_told():
    rng = np.random.default_rng(0)
    clean = corpus.spoken("formant", 0, "speech", 0, 0, 16000, 32000)
    good = clean + 0.003 * rng.standard_normal(32000).astype(np.float32)

    def seen(observed, reference=clean):
        return audit_pairs.measure(observed.astype(np.float32), reference, 16000)

    usual = seen(good)
    assert (
        abs(usual["delay"]) < 0.1
        and usual["si-sdr"] > 10
        and usual["length"] == 0
        and usual["clipped"] == 0
    )
    assert abs(seen(np.roll(good, 40))["delay"]) == pytest.approx(40, abs=0.5)
    assert seen(good[:-800])["length"] == pytest.approx(-0.05)
    assert seen(good * 0)["silent"] < -100
    assert seen(np.clip(20 * good, -1, 1))["clipped"] > 0.005
    assert (
        seen(-good)["polarity"] == 1
        and usual["polarity"] == 0
        and abs(seen(rng.standard_normal(32000))["correlation"]) < 0.3
    )
    assert seen(np.where(np.arange(32000) == 7, np.nan, good))["not-finite"] == 1


# ---- "denoiser run file by file"
def test_the_denoiser_takes_batches(monkeypatch):
    sizes, call = [], denoise.Erb.__call__
    monkeypatch.setattr(
        denoise.Erb,
        "__call__",
        lambda self, noisy, *rest: sizes.append(len(noisy)) or call(self, noisy, *rest),
    )
    made = source()
    sizes.clear()
    together = made.make_batch(list(range(8)))
    assert sizes == [8] and together[3] == made.make(3), "and a row does not depend on the others"


# ---- "scheduler stepped by a fragile count"
def test_a_schedule_is_the_same_after_a_resume_and_at_any_world_size(data):
    """It is computed from the samples seen.

    At the same place it is the same, however often the run was started.
    """
    whole = recipe("lr_every=1", "gan_start_epoch=1")
    due = [whole.step(batch(data), Clock(6, 24, step=k))["g/lr"].item() for k in range(0, 12, 3)]
    assert due == pytest.approx([1e-3 * step_decay(k / 4, 1, 0.5) for k in range(0, 12, 3)])
    late = recipe("lr_every=1", "gan_start_epoch=1")
    tensors, state = (
        {name: value.clone() for name, value in whole.G.tensors().items()},
        whole.G.state(),
    )
    late.G.load(tensors, state)
    assert late.step(batch(data), Clock(6, 24, step=9))["g/lr"].item() == due[3]
    for ranks in (1, 2, 3):  # the global batch is what counts, not a rank's share of it
        layout = batch_layout.fit(6, ranks, 1)
        assert Clock(layout.batch, 24, step=9).epoch == 2.25


# ---- "last, incomplete validation batch biased the mean"
def test_each_held_out_clip_counts_once(tmp_path):
    """Nine clips in chunks of 8.

    The last one, alone in its chunk, must not weigh as much as the other 8.
    """
    some = Data(str(shard_sets.damaged(tmp_path / "set", 2, held_out=9)))
    each = [
        np.abs(
            np.subtract(
                *transforms.to_waves(some.decode(some.validation, [i]), torch.float64)[0].numpy()
            )
        ).mean()
        for i in range(9)
    ]
    assert abs(np.mean(each) - (np.mean(each[:8]) + each[8]) / 2) > 1e-4, (
        "these clips would show nothing"
    )
    assert recipe().validate(some)["valid/input_l1"] == pytest.approx(np.mean(each), rel=1e-12)
