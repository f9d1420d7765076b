"""The timbre source: what it degrades and how, that both members of a pair are the same stretch,
and what it says of doubtful ones.
"""

import json
import pickle
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sounds import measured_snr_db

from distgan.core.errors import ConfigError, DataError
from distgan.shards.audio import align, corpus, degrade, denoise, speech
from distgan.shards.build import command as build_command
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.format.index import load_json
from distgan.shards.format.reader import ShardSet
from distgan.shards.sources.timbre import Source

RATE = 16000
SMALL = {
    "speech": None,
    "noise": None,
    "rirs": None,
    "n": 8,
    "seed": 0,
    "voice": "formant",
    "rate": RATE,
    "save_segment_length": 0.6,
    "segment_length": 0.3,
    "snr": [-5.0, 20.0],
    "reverb": 0.5,
    "denoiser": "erb",
    "weights": None,
    "max_delay": 0.05,
}


def source(**changes) -> Source:
    return Source(Namespace(**{**SMALL, **changes}))


@pytest.fixture(autouse=True)
def short_babble(monkeypatch):
    monkeypatch.setattr(corpus, "BABBLE_VOICES", 2)
    monkeypatch.setattr(corpus, "BABBLE_S", 0.5)


class Late:
    """A stand-in for a denoiser.

    The clean speech, late; `faults` replace the output of samples by the place of their speech in
    the batch.
    """

    name, rate = "late", RATE

    def __init__(self, delay: float, polarity: int = 1, own: float | None = None):
        self.delay, self.polarity, self.own = delay, polarity, own

    def __call__(self, noisy, clean, strengths, lengths=None):
        delays = [
            self.delay if self.own is None or strength.seed % 4 else self.own
            for strength in strengths
        ]
        return torch.stack(
            [
                torch.from_numpy(self.polarity * align.advance(row, -delay))
                for row, delay in zip(clean.numpy(), delays, strict=True)
            ]
        )


def checked(monkeypatch=None, denoiser=None, **changes) -> Source:
    if denoiser:
        monkeypatch.setattr(denoise, "load", lambda *_: denoiser)
    timbre = source(**changes)
    timbre.check(1)
    return timbre


def opened(sample: dict) -> tuple[np.ndarray, np.ndarray, dict]:
    """(input, target, what key.json says), float32 [frames]."""
    sides = [audio_codec.read_wav(sample[f"{side}.wav"]) for side in ("input", "target")]
    assert all(samples.dtype == np.int16 and rate == RATE for samples, rate in sides)
    return (
        audio_codec.to_float(sides[0][0][:, 0]),
        audio_codec.to_float(sides[1][0][:, 0]),
        json.loads(sample["json"]),
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """Recordings of 2.0, 1.5 and 0.5 s at 22.05 and 16 kHz.

    Noises of 3 and 0.2 s; two impulse responses.
    """
    folder = tmp_path_factory.mktemp("material")
    for name in ("speech/deep", "noise", "rirs"):
        (folder / name).mkdir(parents=True)
    for k, (name, rate, seconds) in enumerate(
        [("deep/long.flac", 22050, 2.0), ("middle.wav", RATE, 1.5), ("short.wav", RATE, 0.5)]
    ):
        soundfile.write(
            folder / "speech" / name,
            speech.utterance(np.random.default_rng(k), rate, seconds, k),
            rate,
        )
    rng = np.random.default_rng(9)
    soundfile.write(folder / "noise/fan.wav", 0.1 * rng.standard_normal(3 * RATE), RATE)
    soundfile.write(folder / "noise/click.wav", 0.1 * rng.standard_normal(RATE // 5), RATE)
    for k in range(2):
        soundfile.write(
            folder / f"rirs/hall{k}.wav", degrade.room(rng, RATE, 0.3, 3.0), RATE, subtype="FLOAT"
        )
    return {name: str(folder / name) for name in ("speech", "noise", "rirs")}


@pytest.mark.parametrize(("delay", "polarity"), [(0.0, 1), (137.0, 1), (-60.0, -1), (311.4, -1)])
def test_pairs_are_aligned_whole_and_of_one_stretch(monkeypatch, delay, polarity):
    """Without rooms this denoiser gives the clean speech, so input and target must be equal to the
    very ends: nothing padded, nothing wrapped.
    """
    timbre = checked(monkeypatch, Late(delay, polarity), reverb=0.0)
    latency = timbre.sample["latency"]
    assert latency["samples"] == pytest.approx(delay, abs=0.03) and latency["polarity"] == polarity
    assert latency["pairs"] == latency["agree"] == 8
    for i in (0, 3, 5):
        given, target, about = opened(timbre.make(i))
        assert (
            len(given) == len(target) == 9600 == timbre.sample["length"] == timbre.sample["longest"]
        )
        assert (
            about["delay_samples"] == latency["samples"]
            and about["polarity"] == polarity
            and about["delay_of"] == "pool"
        )
        assert about["correlation"] > 0.98 and "doubt" not in about
        np.testing.assert_allclose(given, target, atol=2e-4 if delay == round(delay) else 8e-3)


def test_a_pair_that_disagrees_with_the_pool_goes_by_itself(monkeypatch):
    timbre = checked(monkeypatch, Late(100.0, own=140.0), n=12, reverb=0.0)
    told = {}
    for i in range(12):
        given, target, about = opened(timbre.make(i))
        told[about["delay_samples"]] = about["delay_of"]
        np.testing.assert_allclose(given, target, atol=2e-4)
    assert told == {100: "pool", 140: "pair"}
    assert 0 < timbre.sample["latency"]["agree"] < 12


class Broken(Late):
    """Gives something useless for every sample but those it is first measured with."""

    def __init__(self, output):
        super().__init__(0.0)
        self.output = output

    def __call__(self, noisy, clean, strengths, lengths=None):
        return (
            super().__call__(noisy, clean, strengths) if self.output is None else self.output(clean)
        )


@pytest.mark.parametrize(
    ("output", "doubt"),
    [
        (lambda clean: clean * float("nan"), "values that are not finite"),
        (lambda clean: 1e-5 * clean, "denoised speech is silent: peak -1"),
        (
            lambda clean: torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)),
            "hardly correlate",
        ),
    ],
)
def test_doubtful_pairs_say_so(monkeypatch, output, doubt):
    denoiser = Broken(None)
    timbre = checked(monkeypatch, denoiser)
    denoiser.output = output
    given, target, about = opened(timbre.make(2))
    assert doubt in about["doubt"] and about["delay_of"] == "pool"
    assert np.isfinite(given).all() and np.abs(target).max() > 0.1


def test_a_denoiser_that_gives_something_else_is_found_before_anything_is_written(monkeypatch):
    denoiser = Broken(
        lambda clean: torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    )
    with pytest.raises(
        DataError, match=r"does not correlate with the clean speech: 0\.\d+ over 8 pairs"
    ):
        checked(monkeypatch, denoiser)


def test_a_sample_is_a_function_of_the_options_and_its_number():
    """Whatever is denoised with it, in whichever process."""
    timbre = checked()
    together = timbre.make_batch([1, 4, 6])
    assert [timbre.make(i) for i in (1, 4, 6)] == together
    assert pickle.loads(pickle.dumps(timbre)).make(4) == together[1]  # noqa: S301  as the writer processes get it
    assert checked(n=10).make(4) == together[1] != checked(seed=1).make(4)
    assert {sample["__key__"] for sample in together} == {"0000001", "0000004", "0000006"}


def test_what_a_sample_is_made_of_is_drawn_and_told():
    timbre = checked(n=24, save_segment_length=0.3, segment_length=0.2, snr=[-3.0, 7.0])
    samples = [timbre._degraded(i) for i in range(24)]
    abouts = [sample.record for sample in samples]
    assert {about["noise"] for about in abouts} == {"white", "pink", "babble"}
    ratios = np.array([about["snr_db"] for about in abouts])
    assert -3 <= ratios.min() < -1.5 and 5.5 < ratios.max() <= 7
    for sample in samples:
        mixture, rir = sample.mixture, sample.record["rir"]
        assert measured_snr_db(mixture, RATE) == pytest.approx(sample.record["snr_db"], abs=0.1)
        heard = (
            mixture.clean if rir is None else degrade.reverberate(mixture.clean, timbre.rooms[rir])
        )
        np.testing.assert_allclose(mixture.noisy - mixture.noise, heard, atol=1e-5)
    assert 5 < sum(about["rir"] is not None for about in abouts) < 19
    assert len({about["strength"]["floor_db"] for about in abouts}) == 24
    for i in (0, 1):
        assert (
            abouts[i]["group"]
            == abouts[i]["speech"]
            == timbre.group(i)
            == "formant-00000"
            != timbre.group(2)
        )
    assert not np.array_equal(samples[0].mixture.clean, samples[1].mixture.clean)
    timbre.reverb = 0.0
    assert all(timbre._degraded(i).record["rir"] is None for i in range(8))


def test_the_erb_denoiser_brings_the_input_nearer_to_the_speech():
    timbre = checked(reverb=0.0, snr=[0.0, 5.0])
    for i in range(4):
        given, target, about = opened(timbre.make(i))
        noisy = timbre._degraded(i).mixture.noisy[timbre.margin : -timbre.margin] * about["gain"]
        assert np.square(given - target).mean() < 0.5 * np.square(noisy - target).mean()
        assert about["correlation"] > 0.6 and about["delay_samples"] == 0


def test_folders_give_the_speech_the_noise_and_the_rooms(folders, monkeypatch):
    """2.0 and 1.5 s hold 3 and 2 stretches of 0.6 s with 0.05 s before and after.

    Each is the recording at the place that is told.
    """
    read = []
    monkeypatch.setattr(
        audio_codec,
        "load",
        lambda path, rate, load=audio_codec.load: read.append(path) or load(path, rate),
    )
    timbre = source(**folders, n=None, voice=None, reverb=1.0)
    check = timbre.check(1)
    assert not check.issues and any(
        "1 of 3 recordings" in note and "short.wav" in note for note in check.notes
    )
    assert [timbre.group(i) for i in range(5)] == ["deep/long.flac"] * 3 + [
        "middle.wav"
    ] * 2 and len(timbre.keys) == 5
    abouts = []
    for i in range(5):
        _, target, about = opened(timbre.make(i))
        whole = (
            audio_codec.resample(
                *soundfile.read(Path(folders["speech"], about["speech"]), dtype="float32"), RATE
            )
            if "long" in about["speech"]
            else soundfile.read(Path(folders["speech"], about["speech"]), dtype="float32")[0]
        )
        start = round(about["start_seconds"] * RATE)
        np.testing.assert_allclose(target, about["gain"] * whole[start : start + 9600], atol=1e-4)
        abouts.append(about)
    assert [about["start_seconds"] for about in abouts] == pytest.approx(
        [0.05, 0.65, 1.25, 0.05, 0.65]
    )
    assert {about["noise"] for about in abouts} <= {"fan.wav", "click.wav"} and {
        about["rir"] for about in abouts
    } == {"hall0.wav", "hall1.wav"}
    assert len(read) == 2, "each impulse response is read once, not for each sample"
    assert timbre.options["voice"] is None


def test_noise_is_always_one_array_as_long_as_the_speech(folders, tmp_path):
    for noise in (
        corpus.RecordedNoise(Path(folders["noise"]), ["fan.wav", "click.wav"], RATE),
        corpus.SyntheticNoise("formant", 0, RATE),
    ):
        drawn = {}
        for i in range(12):
            name, sound = noise.draw(np.random.default_rng(i), 8000)
            assert sound.dtype == np.float32 and sound.shape == (8000,) and np.abs(sound).max() > 0
            drawn[name] = sound
        assert len(drawn) == (2 if "fan.wav" in drawn else 3)
    click, _ = soundfile.read(Path(folders["noise"], "click.wav"), dtype="float32")
    _, sound = corpus.RecordedNoise(Path(folders["noise"]), ["click.wav"], RATE).draw(
        np.random.default_rng(0), 8000
    )
    np.testing.assert_array_equal(sound, np.resize(click, 8000))
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty\.wav"):
        corpus.RecordedNoise(tmp_path, ["empty.wav"], RATE).draw(np.random.default_rng(0), 8000)


def test_silent_and_damaged_speech_is_found_before_anything_is_written(folders, tmp_path):
    voice = speech.utterance(np.random.default_rng(0), RATE, 1.4, 0)
    for name, sound in (
        ("a.wav", np.concatenate([voice, np.zeros(20000, np.float32)])),
        ("b.flac", voice),
        ("c.wav", voice),
    ):
        soundfile.write(tmp_path / name, sound, RATE)
    damaged = bytearray((tmp_path / "b.flac").read_bytes())
    damaged[200:] = bytes(len(damaged) - 200)
    (tmp_path / "b.flac").write_bytes(damaged)
    timbre = source(**{**folders, "speech": str(tmp_path)}, n=None, voice=None)
    found = [(finding.name, finding.usable) for finding in timbre.check(1).issues]
    assert (
        ("a.wav at 1.8 s", True) in found
        and ("b.flac at 0.6 s", False) in found
        and not [name for name, _ in found if "c.wav" in name]
    )
    assert timbre.sample["latency"]["pairs"] == len(timbre.keys) - len(found)


def test_as_many_pairs_as_are_asked_for(folders):
    """More than there are stretches.

    Each again, with other noise. Fewer: spread over the recordings.
    """
    many, few = source(**folders, n=10, voice=None), source(**folders, n=3, voice=None)
    assert many.speech.segments == [
        stretch
        for stretch in source(**folders, n=None, voice=None).speech.segments
        for _ in range(2)
    ]
    many.check(1)
    assert (
        opened(many.make(0))[1].tolist() == opened(many.make(1))[1].tolist()
        and many.make(0)["input.wav"] != many.make(1)["input.wav"]
    )
    assert {few.group(i) for i in range(3)} == {"deep/long.flac", "middle.wav"}


def test_what_decides_the_bytes_is_in_the_options(folders, tmp_path, monkeypatch):
    before = source(**folders, voice=None).options
    soundfile.write(tmp_path / "fan.wav", np.full(RATE, 0.1), RATE)
    assert (
        source(**{**folders, "noise": str(tmp_path)}, voice=None).options["noise"]
        != before["noise"]
    )
    assert json.loads(json.dumps(before)) == before
    monkeypatch.setattr(speech, "espeak_path", lambda: None)
    assert source(voice="auto").options["voice"] == source(voice=None).options["voice"] == "formant"
    with pytest.raises(ConfigError, match="espeak-ng is not installed"):
        source(voice="espeak")
    program = tmp_path / "espeak-ng"
    program.write_text("#!/bin/sh\necho 'eSpeak NG text-to-speech: 1.51.1  Data at: /usr/lib'\n")
    program.chmod(0o755)
    monkeypatch.setattr(speech, "espeak_path", lambda: str(program))
    assert source(voice=None).options["voice"] == "espeak 1.51.1"


@pytest.mark.skipif(speech.espeak_path() is None, reason="espeak-ng is not installed")
def test_espeak_speaks():
    timbre = checked(voice="auto", n=3)
    _, target, about = opened(timbre.make(0))
    assert about["speech"] == "espeak-00000" and 0.1 < np.abs(target).max() <= 0.5 + 1e-4


def test_all_wrong_options_are_named_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        source(
            n=1,
            save_segment_length=0.2,
            snr=[5.0, -5.0],
            reverb=0.0,
            rirs=str(tmp_path),
            speech="nowhere",
            max_delay=0.15,
            denoiser="deepfilternet",
            weights="not/there",
        )
    for said in (
        "--n 1: at least 2",
        "--save-segment-length 0.2 is shorter than --segment-length 0.3",
        "--max-delay 0.15: more than 0, less than half",
        "--snr 5 -5: the lower first",
        "--rirs has no effect",
        "--rirs " + str(tmp_path),
        "--speech nowhere: no such folder",
        "only 48000 Hz",
        "not/there",
    ):
        assert said in str(caught.value), said
    with pytest.raises(
        ConfigError,
        match=r"(?s)3 errors on the command line:.*--seed: found '-1'.*--rate: found '8000'",
    ):
        build_command.main(["timbre", "OUT", "--seed=-1", "rate=8000", "--reverb", "2"])


def test_no_recording_is_long_enough(folders):
    with pytest.raises(
        ConfigError, match=r"3 of 3 recordings are unreadable or shorter than 4\.1 s"
    ):
        source(**folders, n=None, voice=None, save_segment_length=4.0)


def test_built_as_shards(tmp_path):
    assert (
        build_command.main(
            [
                "timbre",
                str(tmp_path / "out"),
                "--n",
                "8",
                "--voice",
                "formant",
                "--save-segment-length",
                "0.3",
                "--segment-length",
                "0.2",
                "--max-delay",
                "0.02",
                "--validation",
                "0.25",
                "--workers",
                "1",
                "--denoiser",
                "erb",
            ]
        )
        == 0
    )
    dataset = load_json(tmp_path / "out/dataset.json")
    assert (
        dataset["samples"] == {"train": 6, "validation": 2} and dataset["sample"]["segment"] == 3200
    )
    assert any("the denoiser erb is late by" in note for note in dataset["notes"])
    train, validation = (
        {json.loads(shard[i]["json"])["group"] for i in range(len(shard))}
        for shard in (ShardSet(tmp_path / "out" / part) for part in ("train", "validation"))
    )
    assert not train & validation and len(train | validation) == 4


def test_copies_under_two_names_are_one_recording(folders, tmp_path):
    for name in ("one.wav", "two.wav"):
        shutil.copy(Path(folders["speech"]) / "middle.wav", tmp_path / name)
    timbre = source(speech=str(tmp_path), n=None, voice="formant")
    assert len(timbre.keys) >= 2 and {timbre.group(i) for i in range(len(timbre.keys))} == {
        "one.wav"
    }
