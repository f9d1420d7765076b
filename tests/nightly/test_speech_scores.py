"""DNSMOS and the speaker embedding are those of the packages that carry their networks.

`make test-extras` installs them, and librosa, into an environment of its own.
"""

import json
import sys
import types

import numpy as np
import pytest
import torch
from sounds import asked, made_voices, noisy, voice_folders

from distgan.commands import evaluate
from distgan.core.errors import ConfigError
from distgan.evaluation.audio import ge2e
from distgan.evaluation.audio.dnsmos import COLUMNS, Dnsmos

librosa = pytest.importorskip("librosa", reason="not installed here: make test-extras")
pytest.importorskip("speechmos", reason="not installed here: make test-extras")
pytest.importorskip("onnxruntime", reason="not installed here: make test-extras")

RATE = 16000


def speech(seconds: float) -> np.ndarray:
    voice = np.concatenate(made_voices())
    return np.resize(noisy(voice, 0.01), int(seconds * RATE)).astype(np.float32)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seconds", [0.7, 9.01, 10.5, 17.4])
def test_dnsmos_is_the_packages(seconds):
    from speechmos import dnsmos

    wave = speech(seconds)
    theirs = dnsmos.run(wave, RATE)
    ours, why = Dnsmos()(wave, RATE)
    assert not why and tuple(ours) == COLUMNS
    for name, key in zip(COLUMNS, ("ovrl_mos", "sig_mos", "bak_mos"), strict=True):
        assert ours[name] == pytest.approx(theirs[key], abs=1e-4)


def test_what_has_no_opinion_says_why():
    dnsmos = Dnsmos()
    assert dnsmos(np.zeros(100, np.float32), RATE) == ({}, "it is silent")
    assert dnsmos(np.full(9, np.nan, np.float32), RATE)[1] == "it has values that are not finite"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seconds", [0.5, 1.6, 4.9])
def test_the_speaker_embedding_is_the_packages(seconds, monkeypatch):
    """Their code is loaded with empty modules in place of a voice detector, which is not used."""
    old = types.ModuleType("scipy.ndimage.morphology")
    old.binary_dilation = None
    monkeypatch.setitem(sys.modules, "scipy.ndimage.morphology", old)
    monkeypatch.setitem(sys.modules, "webrtcvad", types.ModuleType("webrtcvad"))
    from resemblyzer import VoiceEncoder
    from resemblyzer.audio import normalize_volume, wav_to_mel_spectrogram

    wave = 0.05 * speech(seconds)
    ours = ge2e.SpeakerEmbedding()
    loud = normalize_volume(wave, -30, increase_only=True)
    mel = wav_to_mel_spectrogram(loud)
    assert np.abs(ours.mel(torch.from_numpy(loud)).numpy() - mel).max() < 1e-4 * mel.max()
    theirs = VoiceEncoder("cpu", verbose=False).embed_utterance(loud, return_partials=True)[1]
    rows = ours(torch.from_numpy(wave), RATE).numpy()
    assert rows.shape == theirs.shape and np.abs(rows - theirs).max() < 1e-4


def test_folders_are_scored_by_both(tmp_path):
    folder = voice_folders(tmp_path, made_voices())
    out = folder / "out.json"
    words = asked(folder, f"--out={out}", "--metrics", "dnsmos,frechet_ge2e")
    assert evaluate.main(words) == 0
    about = json.loads(out.read_text())
    assert set(about["means"]) == {
        f"{side}{name}" for name in COLUMNS for side in ("", "input_", "target_")
    }
    for name, mean in about["means"].items():
        assert mean["n"] == 5 and 1 <= mean["mean"] <= 5, name
    assert about["clips"][0]["dnsmos"] > about["clips"][0]["input_dnsmos"]
    assert set(about["distances"]) == {"frechet_ge2e", "input_frechet_ge2e"}


def test_what_is_not_installed_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"dnsmos needs .*: pip install 'distgan\[speech\]'"):
        Dnsmos()
    with pytest.raises(ConfigError, match="pip install --no-deps Resemblyzer"):
        ge2e.SpeakerEmbedding()
