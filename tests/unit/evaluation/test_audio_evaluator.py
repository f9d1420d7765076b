"""Scores of repaired sound: known answers, what has no value, any number of processes, the verb on
runs and on folders.
"""

import hashlib
import json
import math
import subprocess
import warnings

import numpy as np
import pytest
import scipy.fft
import soundfile
import torch
from processes import BIN, environment
from sounds import RATE, asked, made_voices, noisy, voice_folders

from distgan.commands import _evaluate_audio, evaluate
from distgan.core.errors import ConfigError, DataError
from distgan.distributed.ranks import Ranks
from distgan.evaluation.audio import evaluator as audio_evaluator
from distgan.evaluation.audio import sets as audio_sets
from distgan.evaluation.audio import summary as audio_summary
from distgan.evaluation.audio.embeddings import SCALE, Embedding
from distgan.evaluation.audio.evaluator import Clip, columns, score
from distgan.metrics import frechet, perceptual
from distgan.metrics.audio import (
    CEPSTRA,
    LOG_MEL_BANDS,
    MEL_BANDS,
    _decibels,
    _mel,
    log_mel,
    mel_cepstral_distortion,
    si_sdr,
)
from distgan.metrics.stft import stft_distance
from distgan.shards.codecs import audio as audio_codec


@pytest.fixture(scope="module")
def voices():
    return made_voices()


@pytest.fixture
def folders(tmp_path, voices):
    return voice_folders(tmp_path, voices)


class Made:
    """Clips as arrays."""

    rate, resolutions, paired = RATE, ((512, 128, 512), (256, 64, 256)), True

    def __init__(self, voices):
        self.voices, self.keys = voices, [f"clip{k}" for k in range(len(voices))]
        self.snrs = [2.0, 7.5, 7.0, None, 30.0][: len(voices)]
        self.groups = [None] * len(voices)

    def __getitem__(self, i):
        return Clip(
            *(
                torch.from_numpy(wave)
                for wave in (
                    noisy(self.voices[i], 0.005, i),
                    self.voices[i],
                    noisy(self.voices[i], 0.02, i),
                )
            )
        )


# ---- the numbers
def test_mel_cepstral_distortion_is_the_root_mean_square_of_what_the_cosines_hold(voices):
    """With all cosines, by Parseval, the difference of log spectra in dB without its mean.

    With 13 of them, as scipy's DCT has it.
    """
    target = torch.from_numpy(voices[0]).double()[None]
    found = torch.from_numpy(noisy(voices[0], 0.003)).double()[None]
    banks = _mel(RATE, MEL_BANDS)
    x, y = (
        torch.stft(
            z[0],
            512,
            128,
            window=torch.hann_window(512, dtype=torch.float64),
            pad_mode="constant",
            return_complex=True,
        )
        .abs()
        .square()
        .T
        @ banks
        for z in (found, target)
    )
    floor = y.sqrt().max() * 1e-4
    difference = (20 * torch.log10(x.sqrt().clamp_min(floor) / y.sqrt().clamp_min(floor))).numpy()
    active = _decibels(found, target, RATE)[2][0].bool().numpy()
    series = scipy.fft.dct(difference, axis=1) / MEL_BANDS  # c_k of the cosine series
    for k in (CEPSTRA, MEL_BANDS - 1):
        by_dct = np.sqrt((series[:, 1 : k + 1] ** 2).sum(1) / 2)[active].mean()
        assert mel_cepstral_distortion(found, target, RATE, k).item() == pytest.approx(
            by_dct, rel=1e-9
        )
    whole = np.sqrt(((difference - difference.mean(1, keepdims=True)) ** 2).mean(1))[active].mean()
    assert mel_cepstral_distortion(found, target, RATE, MEL_BANDS - 1).item() == pytest.approx(
        whole, rel=1e-9
    )
    assert mel_cepstral_distortion(target, target, RATE).item() == 0
    assert (
        mel_cepstral_distortion(0.9 * target, target, RATE).item() < 0.1
    )  # a level alone: what lies on the floor
    assert mel_cepstral_distortion(found, 0 * target, RATE).item() == 0


def test_every_mel_band_hears_something():
    for rate in (1000, 8000, 16000, 48000):
        for bands in (MEL_BANDS, LOG_MEL_BANDS):
            assert (_mel(rate, bands).sum(0) > 0).all()


@pytest.mark.parametrize("level", [0.001, 0.01, 0.1])
def test_si_sdr_is_torchmetrics_without_its_epsilon(voices, level):
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio as theirs

    target, found = (
        torch.from_numpy(wave).double() for wave in (voices[0], noisy(voices[0], level))
    )
    assert si_sdr(found[None], target[None]).item() == pytest.approx(
        theirs(found, target).item(), abs=1e-6
    )
    assert si_sdr(1e-4 * found[None], 1e-4 * target[None]).item() == pytest.approx(
        si_sdr(found[None], target[None]).item(), abs=1e-6
    )


def test_improvement_is_over_the_input(voices):
    values, why = audio_evaluator.measure(Made(voices)[1], RATE, audio_evaluator.PLAIN)
    assert not why and set(values) == set(columns(RATE, audio_evaluator.PLAIN, True))
    assert (
        values["si_sdr_i"] == pytest.approx(values["si_sdr"] - values["input_si_sdr"])
        and values["si_sdr_i"] > 6
    )
    assert all(
        values[name] < values[f"input_{name}"]
        for name in ("lsd", "mcd", "stft", "l1", "lsd 0-500 Hz", "lsd 4000-8000 Hz")
    )
    clip = Made(voices)[1]
    assert (
        values["stft"]
        == stft_distance(clip.output.double()[None], clip.target.double()[None]).item()
    )


# ---- what has no value
def test_what_cannot_be_measured_has_a_reason_and_no_number(voices):
    wave = torch.from_numpy(voices[0])
    broken = wave.clone()
    broken[100] = math.nan
    for clip, reason in (
        (Clip(wave, 0 * wave), "the target is silent"),
        (Clip(broken, wave), "it has values that are not finite"),
    ):
        values, why = audio_evaluator.measure(clip, RATE, audio_evaluator.PLAIN)
        assert (
            all(map(math.isnan, values.values()))
            and set(why.values()) == {reason}
            and why.keys() == values.keys()
        )
    silent, why = audio_evaluator.measure(Clip(0 * wave, wave), RATE, audio_evaluator.PLAIN)
    assert silent["si_sdr"] == -100 and not why  # defined: nothing of the target is there
    short, why = audio_evaluator.measure(
        Clip(wave[5000:5300], wave[5000:5300]), RATE, ("si_sdr", "stft")
    )
    assert (
        short["si_sdr"] == 100
        and math.isnan(short["stft"])
        and why == {"stft": "no more than 1024 frames, half the largest FFT"}
    )


def test_failed_clips_are_told_and_not_averaged(voices):
    class Broken(Made):
        def __getitem__(self, i):
            clip = super().__getitem__(i)
            return Clip(
                clip.output * math.nan if i == 3 else clip.output,
                clip.target * (i != 4),
                clip.input,
            )

    found = score(Ranks(), Broken(voices), ("si_sdr", "mcd", "frechet"))
    means = found["means"]
    assert (means["si_sdr"]["n"], means["si_sdr"]["failed"], means["input_si_sdr"]["n"]) == (
        3,
        2,
        4,
    )
    assert [row["why"] for row in found["clips"]] == [
        "",
        "",
        "",
        "si_sdr, mcd: it has values that are not finite",
        "si_sdr, mcd, input_si_sdr, input_mcd: the target is silent",
    ]
    assert means["si_sdr"]["mean"] == pytest.approx(
        np.mean([row["si_sdr"] for row in found["clips"][:3]])
    )
    assert found["clips"][3]["si_sdr"] is None and json.dumps(found, allow_nan=False)


def test_one_clip_has_a_mean_without_an_interval(voices):
    found = score(Ranks(), Made(voices[:1]), ("si_sdr", "frechet"))
    of = found["means"]["si_sdr"]
    assert (
        of["n"] == 1
        and of["mean"] == found["clips"][0]["si_sdr"]
        and of["sd"] is None
        and of["interval"] is None
    )


# ---- means, conditions, distances
def test_means_conditions_and_distances(voices):
    made = Made(voices)
    found = score(Ranks(), made, audio_evaluator.PLAIN)
    of = found["means"]["lsd"]
    numbers = [row["lsd"] for row in found["clips"]]
    assert of["mean"] == pytest.approx(np.mean(numbers)) and of["sd"] == pytest.approx(
        np.std(numbers, ddof=1)
    )
    assert of["interval"] is None and found["interval_of"] == "clips"
    assert list(found["conditions"]) == ["0 to 5 dB", "5 to 10 dB", "20 dB and more"]
    assert found["conditions"]["5 to 10 dB"]["lsd"]["mean"] == pytest.approx(np.mean(numbers[1:3]))
    rows = {
        side: torch.cat([log_mel(getattr(made[i], side), RATE) for i in range(5)])
        for side in ("output", "input", "target")
    }
    for side, name in (("output", "frechet_logmel"), ("input", "input_frechet_logmel")):
        assert found["distances"][name] == {
            "value": pytest.approx(frechet.distance(rows[side], rows["target"]), rel=1e-6),
            "frames": len(rows[side]),
            "target_frames": len(rows["target"]),
        }
    assert (
        found["distances"]["frechet_logmel"]["value"]
        < found["distances"]["input_frechet_logmel"]["value"]
    )


@pytest.mark.gate
@pytest.mark.parametrize("clips", [1, 5])
@pytest.mark.parametrize("groups", [20, 50, 300])
@pytest.mark.parametrize("kind", ["normal", "skew"])
def test_an_interval_holds_the_mean_as_often_as_it_says(clips, groups, kind):
    """Of single clips, and of several clips of each recording, between which half of the variance
    lies. Taken clip by clip, the interval of the latter holds it much less often.
    """
    of, hits, naive, draws = np.repeat(np.arange(groups), clips), 0, 0, 200
    for k in range(draws):
        rng = np.random.default_rng(k)
        own, shared = rng.standard_normal(len(of)), rng.standard_normal(groups)[of]
        values, mean = (own + shared) / math.sqrt(2), 0.0
        if kind == "skew":
            values, mean = np.exp(values / 2), math.exp(1 / 8)
        low, high = audio_summary.interval(values, of, k)
        hits += low <= mean <= high
        if clips > 1 and groups == 50:
            low, high = audio_summary.interval(values, np.arange(len(of)), k)
            naive += low <= mean <= high
    assert 0.90 <= hits / draws <= 0.99
    assert naive / draws < 0.85
    assert audio_summary.interval(values, np.minimum(of, audio_summary.LEAST - 2), 0) is None


def test_clips_of_one_recording_are_resampled_together(voices):
    made = Made(voices * 8)
    made.snrs, made.groups = [None] * 40, [f"recording {k // 2}" for k in range(40)]
    found = score(Ranks(), made, ("l1",))
    assert found["interval_of"] == "recordings" and found["means"]["l1"]["interval"]
    made.groups = [f"recording {k // 4}" for k in range(40)]
    assert score(Ranks(), made, ("l1",))["means"]["l1"]["interval"] is None


def test_a_set_is_at_no_distance_from_itself(voices):
    class Perfect(Made):
        def __getitem__(self, i):
            target = torch.from_numpy(self.voices[i])
            return Clip(target, target, target)

    found = score(Ranks(), Perfect(voices), audio_evaluator.PLAIN)
    assert found["distances"]["frechet_logmel"]["value"] == pytest.approx(0, abs=1e-9)
    assert (
        found["means"]["lsd"]["mean"]
        == found["means"]["mcd"]["mean"]
        == found["means"]["stft"]["mean"]
        == 0
    )


# ---- embeddings
@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Stand-in weights of wav2vec2_base in the form in which torchaudio publishes them, and their
    digest.
    """
    from torchaudio import models

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "wav2vec2.pth"
    torch.save(models.wav2vec2_base().state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.gate
def test_frechet_audio_distance_names_its_weights(voices, weights):
    path, digest = weights
    embedding = Embedding("wav2vec2_base", str(path), digest)
    made = Made(voices[:3])
    found = score(Ranks(), made, ("si_sdr",), embedding)
    name = f"fad_wav2vec2_base_{digest[:8]}"
    assert (
        set(found["distances"]) == {name, f"input_{name}"} and found["distances"][name]["value"] > 0
    )
    rows = [
        torch.cat([embedding(getattr(made[i], side), RATE) for i in range(3)]).double() / SCALE
        for side in ("output", "target")
    ]
    assert rows[0].shape[1] == 768 and found["distances"][name]["value"] == pytest.approx(
        frechet.distance(*rows), rel=1e-4
    )


@pytest.mark.gate
def test_weights_of_another_checksum_or_model_are_refused(weights, tmp_path):
    path, digest = weights
    with pytest.raises(ConfigError, match=f"SHA-256 is {digest}, expected is 00"):
        Embedding("wav2vec2_base", str(path), "00")
    with pytest.raises(ConfigError, match="no weights of hubert_large"):
        Embedding("hubert_large", str(path), digest)
    with pytest.raises(ConfigError, match="allowed: wav2vec2_base"):
        Embedding("vggish", str(path), digest)
    with pytest.raises(ConfigError, match="No such file"):
        Embedding("wav2vec2_base", str(tmp_path / "none"), digest)


# ---- listening models
def test_listening_models_say_why_they_have_no_value(voices):
    pytest.importorskip("pesq", reason="pip install 'distgan[perceptual]'")
    pytest.importorskip("pystoi", reason="pip install 'distgan[perceptual]'")
    voice, found = voices[4], noisy(voices[4], 0.01)
    values = {name: perceptual.measure(name, found, voice, RATE) for name in perceptual.NAMES}
    assert (
        all(why == "" for _, why in values.values())
        and 1 < values["pesq"][0] < 4.65
        and 0 < values["estoi"][0] <= values["stoi"][0] <= 1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in perceptual.NAMES:
            assert perceptual.measure(name, 0 * found, voice, RATE) == (None, "it is silent")
            assert perceptual.measure(name, found, 0 * voice, RATE) == (
                None,
                "the target is silent",
            )
            for frames in (1600, 100, 1):
                value, why = perceptual.measure(
                    name, found[2000 : 2000 + frames], voice[2000 : 2000 + frames], RATE
                )
                assert value is None and why
    assert perceptual.measure("pesq", found * np.float32(1e-30), voice, RATE)[0] is None


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(perceptual, "_there", lambda package: False)
    with pytest.raises(
        ConfigError,
        match=r"metrics: pesq, estoi need pesq and pystoi: pip install 'distgan\[perceptual\]'",
    ):
        perceptual.require(("pesq", "estoi"))


# ---- folders
def test_folders_that_do_not_match_are_refused_by_name(folders, voices):
    (folders / "repaired/2.wav").write_bytes(audio_codec.write_wav(voices[2][:-7], RATE))
    with pytest.raises(
        ConfigError,
        match=(
            r"(?s)of equal length; --metrics frechet compares .* lengths:\n"
            rf"  2: {len(voices[2]) - 7} frames in .*repaired,"
            rf" {len(voices[2])} frames in .*clean"
        ),
    ):
        evaluate.main(asked(folders))
    (folders / "repaired/2.wav").write_bytes(audio_codec.write_wav(voices[2], 8000))
    with pytest.raises(
        ConfigError, match="(?s)several rates; resample them to one first:.*8000 Hz: "
    ):
        evaluate.main(asked(folders))
    (folders / "denoised/3.wav").write_bytes(b"no sound")
    (folders / "repaired/2.wav").write_bytes(audio_codec.write_wav(voices[2], RATE))
    with pytest.raises(DataError, match="denoised/3.wav cannot be read as sound"):
        evaluate.main(asked(folders))


@pytest.mark.parametrize("metrics", [["--metrics", "frechet"], []])
def test_sets_of_any_names_and_lengths_are_compared(folders, voices, capsys, metrics):
    """By what needs no pairs alone, whatever the order of names."""
    for k in range(5):
        (folders / f"repaired/{k}.wav").rename(folders / f"repaired/drawn{k}.wav")
    (folders / "repaired/drawn4.wav").write_bytes(audio_codec.write_wav(voices[4][:9000], RATE))
    (folders / "repaired/drawn3.wav").unlink()
    out = folders / "out.json"
    assert evaluate.main([*asked(folders)[:4], f"--out={out}", *metrics]) == 0
    shown, about = capsys.readouterr().out, json.loads(out.read_text())
    sets = [
        torch.cat([log_mel(torch.from_numpy(audio_codec.load(path)[0]), RATE) for path in paths])
        for paths in ((folders / "repaired").iterdir(), (folders / "clean").iterdir())
    ]
    assert about["distances"]["frechet_logmel"] == {
        "value": pytest.approx(frechet.distance(*sets), rel=1e-6),
        "frames": len(sets[0]),
        "target_frames": len(sets[1]),
    }
    assert about["metrics"] == ["frechet"] and "frechet_logmel" in shown
    assert ("si_sdr, lsd, mcd, stft, l1, bands are left out" in shown) == (not metrics)
    with pytest.raises(ConfigError, match="(?s)lsd need pairs: no file of .*; --metrics frechet"):
        evaluate.main([*asked(folders)[:4], "--metrics", "lsd,frechet"])


def test_a_clip_without_a_counterpart_is_left_out_of_what_needs_one(folders, capsys):
    (folders / "repaired/2.wav").unlink()
    out = folders / "out.json"
    assert evaluate.main(asked(folders, f"--out={out}", "--metrics", "si_sdr,frechet")) == 0
    about = json.loads(out.read_text())
    mean = about["means"]["si_sdr"]
    assert (mean["n"], mean["failed"], about["means"]["input_si_sdr"]["n"]) == (4, 1, 5)
    assert "1 clips are not in all folders" in capsys.readouterr().out
    assert {row["key"]: row["why"] for row in about["clips"] if row["why"]} == {
        "2": "si_sdr: no sound of this name"
    }
    distances = about["distances"]
    assert distances["frechet_logmel"]["frames"] < distances["input_frechet_logmel"]["frames"]


@pytest.mark.parametrize("late", [1, -3, 40])
def test_a_delay_that_all_clips_share_is_named_and_changes_no_number(voices, late):
    class Late(Made):
        def __getitem__(self, i):
            clip = super().__getitem__(i)
            return Clip(torch.roll(clip.output, late), clip.target, clip.input)

    made, moved = Made(voices), Late(voices)
    assert score(Ranks(), made, ("si_sdr",))["delay"] is None
    found = score(Ranks(), moved, ("si_sdr",))
    assert found["delay"] == {"samples": late, "clips": 5, "of": 5}
    clip = moved[1]
    assert found["clips"][1]["si_sdr"] == si_sdr(clip.output[None], clip.target[None]).item()
    rows, notes = _evaluate_audio.tables(found | {"samples": 5})[0][1:]
    assert f"late by {late} samples" in notes[0] and rows[0][2] == "no interval"


def test_several_channels_are_refused(folders, voices):
    """Mixed down, left and right could be exchanged and nobody would hear it."""
    soundfile.write(
        folders / "clean/2.wav", np.stack([voices[2], voices[2]], 1), RATE, subtype="FLOAT"
    )
    with pytest.raises(ConfigError, match="clean/2.wav has several channels"):
        evaluate.main(asked(folders))


def test_at_rates_of_no_sound_what_knows_hertz_is_left_out(folders, capsys):
    metrics = _evaluate_audio.suitable_metrics(audio_evaluator.PLAIN, 100_000_000, None)
    assert (
        metrics == ("si_sdr", "stft", "l1")
        and "lsd, mcd, bands, frechet are left out" in capsys.readouterr().out
    )
    assert (
        _evaluate_audio.suitable_metrics(audio_evaluator.PLAIN, 16000, None)
        == audio_evaluator.PLAIN
    )
    with pytest.raises(ConfigError, match="lsd: made for sound"):
        _evaluate_audio.suitable_metrics(("lsd", "l1"), 100_000_000, None)


def test_more_frames_than_sums_hold_have_no_distance_at_any_number_of_processes(monkeypatch):
    """Two ranks hold each less than is too much for one."""
    for module in (audio_evaluator, audio_summary):
        monkeypatch.setattr(module, "MOST", 10)
    rows, alone, halves = torch.rand(12, 3), {}, [{}, {}]
    for part in (rows[:6], rows[6:]):
        audio_evaluator._add_frames(alone, ("logmel", "output"), part, "a")
    for half, part in zip(halves, (rows[:6], rows[6:]), strict=True):
        audio_evaluator._add_frames(half, ("logmel", "output"), part, "a")
    for before in (alone, halves[0]):  # one is past the bound, the other not
        with pytest.raises(DataError, match="a: logmel: features reach 99"):
            audio_evaluator._add_frames(before, ("logmel", "output"), torch.full((1, 3), 99.0), "a")
    key = ("logmel", "output")
    assert alone[key].n == sum(half[key].n for half in halves) == 12
    assert audio_summary._distance(alone[key], alone[key], 1.0) == {
        "value": None,
        "frames": 12,
        "target_frames": 12,
        "why": "more than 10 frames: sums would not be exact any more",
    }


# ---- runs


def test_the_verb_says_how_it_is_used(tmp_path):
    shown = subprocess.run(
        [str(BIN / "distgan"), "evaluate", "--help"],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    ).stdout
    assert "CLEAN REPAIRED --input DENOISED" in shown
    with pytest.raises(
        ConfigError, match="--embedding, --embedding-weights and --embedding-sha256 belong together"
    ):
        words = ["--real", str(tmp_path), "--fake", str(tmp_path), "--embedding", "hubert_base"]
        evaluate.COMMAND.parse(words)


def test_a_data_set_without_held_out_clips_is_refused():
    class Empty:
        validation, sample = [], None

    with pytest.raises(ConfigError, match="the validation split is empty"):
        audio_sets.ValidationClips(Empty(), None, torch.device("cpu"), ())
