"""Folders of pairs: what belongs together, pieces, delays, and what is no pair."""

import json
import pickle
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distgan.core.errors import ConfigError, DataError
from distgan.shards.audio import align, speech
from distgan.shards.audio.pairs import clipped_share, read_span
from distgan.shards.build import command as build_command
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.format.index import load_json
from distgan.shards.format.reader import ShardSet
from distgan.shards.sources.audio import Source

RATE = 8000


def source(folder: Path | None = None, **changes) -> Source:
    return Source(
        Namespace(
            **{
                "folder": folder and str(folder),
                "input": None,
                "target": None,
                "rate": None,
                "segment": None,
                "payload": "wav",
                "align": False,
                **changes,
            }
        )
    )


def voice(seed: int, seconds: float = 1.5) -> np.ndarray:
    return speech.utterance(np.random.default_rng(seed), RATE, seconds, seed).astype(np.float32)


def put(folder: Path, name: str, given: np.ndarray, target: np.ndarray, rate: int = RATE) -> Path:
    for side, x in (("input", given), ("target", target)):
        (folder / side / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(
            folder / side / name, x, rate, subtype="FLOAT" if name.endswith(".wav") else None
        )
    return folder


def members(sample: dict) -> tuple[np.ndarray, np.ndarray]:
    """(input, target), int16 [frames]."""
    return tuple(
        (audio_codec.read_wav if name.endswith("wav") else audio_codec.read_flac)(sample[name])[0][
            :, 0
        ]
        for name in sorted(sample)
        if name.startswith(("input.", "target."))
    )


@pytest.fixture(scope="module")
def takes(tmp_path_factory) -> Path:
    """Two good pairs of different kinds of file, a lone input, two lone targets, and a text."""
    folder = tmp_path_factory.mktemp("takes")
    put(folder, "a.wav", 0.5 * voice(1), voice(1))
    put(folder, "deep/b.flac", 0.5 * voice(2), voice(2))
    (folder / "target/a.wav").rename(folder / "target/a.WAV")
    for lone in ("input/only here.wav", "target/c.wav", "target/d.flac"):
        soundfile.write(folder / lone, voice(3), RATE)
    (folder / "input/notes.txt").write_text("not a sound")
    return folder


@pytest.mark.parametrize("payload", ["wav", "flac"])
def test_pairs_are_found_by_name_and_written_in_16_bits(takes, payload):
    audio = source(takes, payload=payload)
    check = audio.check(1)
    assert not check.issues and sorted(audio.keys) == ["a", "deep_b"]
    assert any("1 without a target, left out: only here.wav" in note for note in check.notes)
    assert any("2 without an input, left out: c.wav, d.flac" in note for note in check.notes)
    assert audio.sample == {
        "kind": "pair",
        "rate": RATE,
        "fields": [f"input.{payload}", f"target.{payload}"],
        "dtype": "int16",
        "length": 12000,
        "longest": 12000,
    }
    sample = audio.make(audio.keys.index("a"))
    given, target = members(sample)
    np.testing.assert_array_equal(given, audio_codec.to_int16(0.5 * voice(1)))
    np.testing.assert_array_equal(target, audio_codec.to_int16(voice(1)))
    about = json.loads(sample["json"])
    assert about == {"group": "a", "name": "a.wav", "start_seconds": 0.0, "correlation": 1.0}


def test_pieces_cover_the_recording_and_stay_together(takes, tmp_path):
    """1.5 s in pieces of 0.4: three whole ones and 0.3 s; of 0.55: two whole ones and 0.4 s; of
    1.0: one and half.
    """
    for segment, lengths in (
        (0.4, [3200, 3200, 3200, 2400]),
        (0.55, [4400, 4400, 3200]),
        (1.0, [8000, 4000]),
        (1.1, [8800]),
        (2.5, [12000]),
    ):
        audio = source(takes, segment=segment)
        audio.check(1)
        mine = [i for i in range(len(audio.keys)) if audio.group(i) == "a"]
        assert [audio.pieces[i][2] for i in mine] == lengths
        assert audio.sample["length"] == min(lengths) and audio.sample["longest"] == max(lengths)
        sides = [
            np.concatenate(side)
            for side in zip(*(members(audio.make(i)) for i in mine), strict=True)
        ]
        for side, whole in zip(sides, (0.5 * voice(1), voice(1)), strict=True):
            np.testing.assert_array_equal(side, audio_codec.to_int16(whole)[: sum(lengths)])
    with pytest.raises(ConfigError, match="no recording is half as long"):
        source(takes, segment=4.0).check(1)
    put(tmp_path, "long.wav", voice(4), voice(4))
    put(tmp_path, "short.wav", voice(5, 0.3), voice(5, 0.3))
    audio = source(tmp_path, segment=1.0)
    assert any(
        "1 recordings are shorter than half a segment, left out: short.wav" in note
        for note in audio.check(1).notes
    )
    assert audio.keys == ["long-00000", "long-00001"]


@pytest.mark.parametrize(("delay", "polarity"), [(37.0, 1), (-12.0, 1), (20.4, -1), (-3.7, 1)])
def test_a_delay_is_reported_or_taken_out(tmp_path, delay, polarity):
    clean = voice(6, 2.0)
    put(tmp_path, "a.wav", polarity * 0.8 * align.advance(clean, -delay), clean)
    put(tmp_path, "b.wav", voice(7), voice(7))
    reported = [f for f in source(tmp_path).check(1).issues]
    assert len(reported) == 1 and reported[0].usable and reported[0].name == "a.wav"
    assert f"{'late' if delay > 0 else 'early'} by {abs(delay):.1f} samples" in reported[0].reason
    assert ("polarity is inverted" in reported[0].reason) == (polarity < 0)
    audio = source(tmp_path, align=True, segment=0.5)
    assert audio.check(1).issues == []
    audio = pickle.loads(pickle.dumps(audio))  # noqa: S301  as the writer processes get it
    for i in (i for i in range(len(audio.keys)) if audio.group(i) == "a"):
        sample = audio.make(i)
        given, target = (audio_codec.to_float(x) for x in members(sample))
        about = json.loads(sample["json"])
        assert (
            about["delay_samples"] == pytest.approx(delay, abs=0.02)
            and about["polarity"] == polarity
        )
        start = round(about["start_seconds"] * RATE)
        assert -delay <= start and start + len(target) <= len(clean) - delay, (
            "only where there are both"
        )
        np.testing.assert_allclose(target, clean[start : start + len(target)], atol=1e-4)
        inner = slice(
            40 if start < 40 else 0,
            len(target) - 40 if start + len(target) > len(clean) - 40 else None,
        )
        np.testing.assert_allclose(
            given[inner],
            0.8 * target[inner],
            atol=5e-3,
            err_msg="also where pieces meet; not where the recording ends",
        )


def test_lengths_may_differ_by_10_ms(tmp_path):
    put(tmp_path, "near.wav", voice(1)[:-80], voice(1))
    put(tmp_path, "far.wav", voice(2)[:-81], voice(2))
    audio = source(tmp_path)
    check = audio.check(1)
    assert [(f.name, f.usable) for f in check.issues] == [
        ("far.wav", False)
    ] and "more than 10 ms apart" in check.issues[0].reason
    assert any(
        "1 pairs differ in length by up to 80 frames, cut to the shorter: near.wav" in note
        for note in check.notes
    )
    given, target = members(audio.make(audio.keys.index("near")))
    assert len(given) == len(target) == 11920


def test_what_is_no_pair_is_told(tmp_path):
    clean = voice(1)
    broken = clean.copy()
    broken[100] = np.nan
    put(tmp_path, "nan.wav", broken, clean)
    put(tmp_path, "silent.wav", clean, 1e-4 * clean)
    put(tmp_path, "other.wav", voice(8), voice(9))
    put(tmp_path, "clipped.wav", np.clip(8 * clean, -0.95, 0.95), clean)
    put(tmp_path, "loud.wav", 3 * clean, clean)
    put(tmp_path, "good.wav", clean, clean)
    put(tmp_path, "damaged.wav", clean, clean)
    (tmp_path / "input/damaged.wav").write_bytes(b"RIFF....WAVE")
    found = {f.name: f for f in source(tmp_path).check(1).issues}
    assert {name: f.usable for name, f in found.items()} == {
        "nan.wav": False,
        "silent.wav": False,
        "other.wav": False,
        "damaged.wav": False,
        "clipped.wav": True,
        "loud.wav": True,
    }
    for name, said in (
        ("nan", "input has values that are not finite"),
        ("silent", "target is silent: peak -86 dB"),
        ("damaged", "cannot be read"),
        ("other", "not the same recording"),
        ("clipped", "input is clipped"),
        ("loud", "peaks at 1.50, clipped at 1"),
    ):
        assert said in found[f"{name}.wav"].reason


def test_rates_must_be_one_or_are_made_one(tmp_path):
    put(tmp_path, "a.wav", voice(1), voice(1))
    put(tmp_path, "b.wav", voice(2), voice(2), rate=16000)
    with pytest.raises(
        ConfigError, match=r"(?s)choose one with --rate.*8000 Hz: .*a\.wav.*16000 Hz: .*b\.wav"
    ):
        source(tmp_path)
    audio = source(tmp_path, rate=16000)
    audio.check(1)
    assert audio.sample["length"] == 12000 and audio.sample["longest"] == 24000
    given, _ = members(audio.make(audio.keys.index("a")))
    np.testing.assert_array_equal(
        given, audio_codec.to_int16(audio_codec.resample(voice(1), 8000, 16000))
    )


@pytest.mark.parametrize("rate", [11025, 16000, 6000, 4000])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_a_stretch_of_a_file_is_that_of_the_whole(tmp_path, name, rate):
    x = np.random.default_rng(0).normal(0, 0.1, 60000).astype(np.float32)
    soundfile.write(tmp_path / name, np.stack([x, np.roll(x, 1)], 1), 11025)
    whole, _ = audio_codec.load(tmp_path / name, rate)
    for first in (0, 1, 777, len(whole) // 2 + 1, len(whole) - 500, len(whole)):
        part = read_span(tmp_path / name, rate, first, 900)
        assert len(part) == min(900, len(whole) - first)
        np.testing.assert_allclose(part, whole[first : first + 900], atol=2e-6)


def test_clipping_is_a_run_at_the_peak_and_silence_is_none():
    tone = np.sin(np.arange(8000) * 0.3)
    assert (
        clipped_share(tone)
        == clipped_share(0.5 * np.clip(3 * tone, -1, 1))
        == clipped_share(np.zeros(100))
        == clipped_share(np.empty(0))
        == 0
    )
    assert 0.5 < clipped_share(np.clip(3 * tone, -1, 1)) < 0.9
    assert clipped_share(np.array([0, 1, 1, 0, 1, 1, 1, 0.0])) == 3 / 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the files by --from"),
        (["--input", "x"], "name the files by --from"),
        (
            ["--from=x", "--input=x", "--target=x", "--rate=1", "--segment=0"],
            r"(?s)--rate: found '1'.*--segment: found '0'.*name the files",
        ),
        (["--input=nowhere", "--target=nowhere"], "nowhere: no such folder"),
    ],
)
def test_wrong_options(words, message):
    with pytest.raises(ConfigError, match=message):
        build_command.main(["audio", "OUT", *words])


def test_folders_without_pairs(tmp_path):
    with pytest.raises(ConfigError, match="has no folder input and no folder target"):
        source(tmp_path)
    put(tmp_path, "a.wav", voice(1), voice(1))
    soundfile.write(tmp_path / "input/a.flac", voice(1), RATE)
    with pytest.raises(ConfigError, match=r"several files of one name: a\.flac, a\.wav"):
        source(tmp_path)
    (tmp_path / "input/a.wav").rename(tmp_path / "input/b.wav")
    (tmp_path / "input/a.flac").unlink()
    with pytest.raises(ConfigError, match=r"b\.wav there, a\.wav here"):
        source(tmp_path)


def test_a_file_that_shrinks_after_the_check_is_told(takes, tmp_path):
    put(tmp_path, "a.wav", voice(1), voice(1))
    audio = source(tmp_path)
    audio.check(1)
    put(tmp_path, "a.wav", voice(1)[:100], voice(1)[:100])
    with pytest.raises(DataError, match=r"a\.wav is shorter than when it was checked"):
        audio.make(0)


def test_built_as_shards(takes, tmp_path):
    assert (
        build_command.main(
            [
                "audio",
                str(tmp_path / "out"),
                "--from",
                str(takes),
                "--segment",
                "0.5",
                "--validation",
                "0.5",
                "--workers",
                "1",
            ]
        )
        == 0
    )
    assert load_json(tmp_path / "out/dataset.json")["samples"] == {"train": 3, "validation": 3}
    groups = [
        {json.loads(shard[i]["json"])["group"] for i in range(3)}
        for shard in (ShardSet(tmp_path / "out" / part) for part in ("train", "validation"))
    ]
    assert not groups[0] & groups[1]


def test_copies_under_two_names_are_one_recording(tmp_path):
    for name, k in (("a.wav", 1), ("b.wav", 2)):
        put(tmp_path, name, 0.5 * voice(k), voice(k))
    for side in (
        "input",
        "target",
    ):  # copied, not written again: a WAV of floats holds the second it was written in
        shutil.copy(tmp_path / side / "a.wav", tmp_path / side / "copy of a.wav")
    audio = source(tmp_path)
    audio.check(1)
    assert [audio.group(i) for i in range(3)] == ["a", "b", "a"]
