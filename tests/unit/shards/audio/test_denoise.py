"""Denoisers remove noise, add no delay, and treat a row the same in any batch."""

import math
import sys
import zipfile

import numpy as np
import pytest
import torch

from distgan.core.errors import ConfigError
from distgan.shards.audio import align, deepfilter, degrade, denoise, speech
from distgan.shards.audio.strength import Strength, draw_strength

RATE = 16000
EMBEDDED = ("erb", "wiener")
PLAIN = Strength(-25.0, 0.0, 1.0, 0)


def mixtures(n=4, seconds=1.5, snr_db=5.0, rate=RATE):
    """(noisy, clean), float32 [n, T]."""
    made = []
    for i in range(n):
        rng = np.random.default_rng(i)
        clean = speech.utterance(rng, rate, seconds, i)
        made.append(degrade.mix(clean, degrade.noise("pink", rng, len(clean), rate), snr_db, rate))
    return tuple(
        torch.from_numpy(np.stack([getattr(m, name) for m in made])) for name in ("noisy", "clean")
    )


def strengths(n):
    return [draw_strength(np.random.default_rng(i)) for i in range(n)]


def si_sdr(x, reference):
    """Scale-invariant ratio in dB of what is the reference to what is not (Le Roux et al. 2019)."""
    part = (x @ reference) / (reference @ reference) * reference
    return float(10 * torch.log10(part.square().sum() / (x - part).square().sum()))


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_row_is_the_same_in_any_batch_and_at_any_length(name):
    noisy, clean = mixtures()
    denoiser, strong = denoise.load(name, RATE), strengths(4)
    together = denoiser(noisy, clean, strong)
    for order in ([0], [3, 1], [2, 2, 0]):
        some = denoiser(noisy[order], clean[order], [strong[i] for i in order])
        assert (some - together[order]).abs().max() < 1e-6
    lengths = [20000, 24000, 16001, 9999]
    inside = torch.arange(24000) < torch.tensor(lengths)[:, None]
    filled = denoiser(noisy * inside, clean * inside, strong, lengths)
    for i, length in enumerate(lengths):
        alone = denoiser(noisy[i : i + 1, :length], clean[i : i + 1, :length], strong[i : i + 1])
        assert (filled[i, :length] - alone[0]).abs().max() < 1e-6


@pytest.mark.gate
@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize("rate", [16000, 22050, 48000])
def test_it_adds_no_delay_and_removes_noise(name, rate):
    noisy, clean = mixtures(2, rate=rate, snr_db=10.0)
    out = denoise.load(name, rate)(noisy, clean, [PLAIN, PLAIN])
    assert out.shape == noisy.shape and out.dtype == torch.float32
    for y, x, before in zip(out, clean, noisy, strict=True):
        assert abs(align.estimate(x.numpy(), y.numpy(), 1000).samples) < 0.05 * rate / RATE
        assert si_sdr(y, x) > si_sdr(before, x) + 2


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize("length", [1, 100, 321])
def test_short_recordings(name, length):
    noisy, clean = (x[:, :length] for x in mixtures(2))
    out = denoise.load(name, RATE)(noisy, clean, [PLAIN, PLAIN])
    assert out.shape == (2, length) and out.isfinite().all()


def test_clean_speech_passes_erb_unchanged():
    _, clean = mixtures(2)
    assert (denoise.load("erb", RATE)(clean, clean, [PLAIN, PLAIN]) - clean).abs().max() < 1e-5


@pytest.mark.parametrize("floor_db", [-12.0, -30.0])
def test_where_nothing_is_said_the_floor_is_left(floor_db):
    noise = torch.from_numpy(degrade.noise("white", np.random.default_rng(0), 2 * RATE, RATE))[None]
    strength = Strength(floor_db, 3.0, 1.0, 0)
    out = denoise.load("erb", RATE)(noise, torch.zeros_like(noise), [strength])
    assert (out - 10 ** (floor_db / 20) * noise).abs().max() < 1e-5
    left = denoise.load("wiener", RATE)(
        noise, torch.zeros_like(noise), [Strength(floor_db, 0.0, 2.0, 0)]
    )
    assert (
        floor_db - 0.1
        < 10 * math.log10(left.square().mean() / noise.square().mean())
        < floor_db + 8
    )


def test_jitter_and_oversubtraction_do_damage_by_their_own_seed():
    noisy, clean = (x[:1] for x in mixtures(1, snr_db=0.0))
    erb = denoise.load("erb", RATE)
    plain, shaken, again, other = (
        erb(noisy, clean, [s])[0]
        for s in (
            PLAIN,
            Strength(-25.0, 4.0, 1.0, 5),
            Strength(-25.0, 4.0, 1.0, 5),
            Strength(-25.0, 4.0, 1.0, 6),
        )
    )
    assert torch.equal(shaken, again) and not torch.allclose(shaken, other)
    assert si_sdr(plain, clean[0]) > si_sdr(shaken, clean[0]) + 0.5
    for name in EMBEDDED:
        soft, hard = (
            denoise.load(name, RATE)(noisy, clean, [Strength(-25.0, 0.0, over, 0)])
            for over in (1.0, 2.5)
        )
        assert hard.square().sum() < 0.95 * soft.square().sum()


def test_strengths_are_drawn_from_the_stated_ranges():
    drawn = [draw_strength(np.random.default_rng(i)) for i in range(200)]
    assert (
        drawn[0] == draw_strength(np.random.default_rng(0)) and len({s.seed for s in drawn}) == 200
    )
    for name, low, high in (("floor_db", -35, -12), ("jitter_db", 0, 4), ("oversubtract", 1, 1.5)):
        values = [getattr(s, name) for s in drawn]
        assert (
            low <= min(values) < low + 0.1 * (high - low)
            and high - 0.1 * (high - low) < max(values) <= high
        )


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
def test_bands_cover_all_bins_and_widen(rate):
    size = 2 * round(0.01 * rate)
    edges = denoise.erb_edges(rate, size)
    assert edges[0] == 0 and edges[-1] == size // 2 + 1 and len(edges) == denoise.BANDS + 1
    assert np.diff(edges).min() >= 2 and np.diff(edges)[-4:].mean() > np.diff(edges)[:4].mean()


def test_what_cannot_be_loaded_says_why():
    with pytest.raises(
        ConfigError, match="no denoiser 'spectral'; there are: erb, wiener, deepfilternet"
    ):
        denoise.load("spectral", RATE)
    with pytest.raises(ConfigError, match="erb takes no weights"):
        denoise.load("erb", RATE, sys.prefix)
    with pytest.raises(
        ConfigError, match="rate 4000 Hz: the denoiser wiener needs at least 8000 Hz"
    ):
        denoise.load("wiener", 4000)


def test_deepfilternet_says_all_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        denoise.load("deepfilternet", RATE, tmp_path / "none")
    for part in (
        "not installed: df, libdf",
        "pip install --no-deps deepfilternet==0.5.6",
        "3.10 and 3.11",
        "rate 16000 Hz",
        "48000",
        "no weights at",
        "models/DeepFilterNet3.zip",
    ):
        assert part in str(caught.value)
    (tmp_path / "other.zip").write_bytes(b"")
    for weights, message in (
        (tmp_path / "none", "no weights at"),
        (tmp_path, "no config.ini in .*\n.*no model_"),
        (
            tmp_path / "other.zip",
            r"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391\); there are: DeepFilterNet3.zip",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            denoise.load("deepfilternet", 48000, weights)


def test_a_zip_of_weights_writes_nothing_outside_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for name in (
            "Net/config.ini",
            "Net/checkpoints/model_96.ckpt.best",
            "../../model_97.ckpt",
            "/tmp/model_98.ckpt",
            "Net/run.py",
        ):
            archive.writestr(name, name)
    (tmp_path / "in").mkdir()
    deepfilter.unpack(tmp_path / "w.zip", tmp_path / "in")
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    checkpoints = {
        f"in/checkpoints/{name}"
        for name in ("model_96.ckpt.best", "model_97.ckpt", "model_98.ckpt")
    }
    assert found == {"w.zip", "in/config.ini"} | checkpoints


@pytest.fixture
def untrained(tmp_path):
    """A folder of weights as DeepFilterNet's own, from an untrained network."""
    pytest.importorskip(
        "libdf",
        reason=(
            "deepfilternet and deepfilterlib are not installed: its loading is tested up to there"
            " only"
        ),
    )
    with deepfilter._missing_torchaudio_names():
        from df.enhance import init_df
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.ini").write_text("[train]\nmodel = deepfilternet3\n[DF]\nsr = 48000\n")
    torch.manual_seed(0)
    model = init_df(model_base_dir=str(tmp_path), epoch=None, log_level="NONE", log_file=None)[0]
    torch.save(model.state_dict(), tmp_path / "checkpoints" / "model_7.ckpt.best")
    return tmp_path


def test_deepfilternet_loads_and_treats_rows_alone(untrained):
    denoiser = denoise.load("deepfilternet", 48000, untrained)
    assert not [name for name in sys.modules if name.startswith("torchaudio.backend")]
    assert sorted(path.name for path in untrained.iterdir()) == [
        "checkpoints",
        "config.ini",
    ]  # no log file
    noisy, clean = mixtures(3, rate=48000)
    out = denoiser(noisy, clean, [PLAIN] * 3)
    assert out.shape == noisy.shape and out.dtype == torch.float32 and out.isfinite().all()
    assert (
        torch.cat([denoiser(noisy[i : i + 1], clean[i : i + 1], [PLAIN]) for i in range(3)]) - out
    ).abs().max() < 1e-6
    assert torch.equal(denoiser(noisy, clean, [Strength(0.0, 0.0, 1.0, 0)] * 3), noisy)


def test_deepfilternet_refuses_weights_that_do_not_fit(untrained):
    path = untrained / "checkpoints" / "model_7.ckpt.best"
    state = torch.load(path, weights_only=True)
    del state[sorted(state)[0]]
    torch.save(state, path)
    with pytest.raises(ConfigError, match="does not fit its config.ini: 1 tensors"):
        denoise.load("deepfilternet", 48000, untrained)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        denoise.load("deepfilternet", 48000, untrained)
