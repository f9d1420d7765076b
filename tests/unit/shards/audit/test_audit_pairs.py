"""`distgan check` on pairs of recordings.

Every fault that is planted is found, by name; a clean set has no findings.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from audits import check, found, write_set

from distgan.cli import guarded
from distgan.shards.audio import speech
from distgan.shards.audio.pairs import clipped_share
from distgan.shards.audit import command as audit_command
from distgan.shards.audit import pairs
from distgan.shards.audit.checks import SOUND_ONLY
from distgan.shards.codecs.audio import to_int16, write_flac, write_wav

RATE = 16_000
LENGTH = RATE
KIND = {
    "kind": "pair",
    "rate": RATE,
    "fields": ["input.wav", "target.wav"],
    "dtype": "int16",
    "length": LENGTH,
    "longest": LENGTH,
}


def rng(i: int) -> np.random.Generator:
    return np.random.default_rng(i)


@pytest.fixture(scope="module")
def voices() -> list[np.ndarray]:
    """Utterances of 1 s."""
    return [speech.utterance(rng(i), RATE, 1.0, i) for i in range(8)]


def noisy(x: np.ndarray, seed: int, snr_db: float = 10.0) -> np.ndarray:
    noise = rng(seed).standard_normal(len(x))
    return (x + noise * np.sqrt((x**2).mean() / 10 ** (snr_db / 10))).astype(np.float32)


def wav(x: np.ndarray, rate: int = RATE) -> bytes:
    return write_wav(to_int16(x), rate)


def pair(key: str, observed: np.ndarray | bytes, target: np.ndarray | bytes, **about) -> dict:
    return {
        "__key__": key,
        "input.wav": observed if isinstance(observed, bytes) else wav(observed),
        "target.wav": target if isinstance(target, bytes) else wav(target),
        "json": json.dumps(about).encode(),
    }


def pair_set(
    root: Path,
    voices: list[np.ndarray],
    *faults: dict,
    validation: tuple[dict, ...] = (),
    **dataset,
) -> Path:
    def some(numbers: range) -> list[dict]:
        return [
            pair(f"{i:03d}", noisy(voices[i], i), voices[i], group=f"g{i}", snr_db=10.0)
            for i in numbers
        ]

    return write_set(
        root,
        [*some(range(5)), *faults],
        [*some(range(5, 7)), *validation],
        dataset.pop("kind", KIND),
        **{"source": "timbre", "options": {"snr": [-5, 20]}, **dataset},
    )


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch, request):
    """They take a second."""
    if request.node.name != "test_pictures":
        monkeypatch.setattr(audit_command._Quality, "draw", lambda *_: [])


def late(x: np.ndarray, samples: int) -> np.ndarray:
    return np.concatenate([np.zeros(samples, np.float32), x[: len(x) - samples]])


def stretched(x: np.ndarray, samples: float) -> np.ndarray:
    """A recorder whose clock is slow: the end is late by `samples`."""
    return np.interp(np.arange(len(x)) * (1 - samples / len(x)), np.arange(len(x)), x).astype(
        np.float32
    )


def quieter(x: np.ndarray, db: float) -> np.ndarray:
    return (x * 10 ** (-db / 20)).astype(np.float32)


def dropped(x: np.ndarray, kept: float) -> np.ndarray:
    """Silence but for a stretch in the middle."""
    middle, half = len(x) // 2, int(kept * len(x) / 2)
    return np.where(abs(np.arange(len(x)) - middle) < half, x, 0).astype(np.float32)


def muffled(x: np.ndarray, hz: float) -> np.ndarray:
    spectrum = np.fft.rfft(x)
    spectrum[np.fft.rfftfreq(len(x), 1 / RATE) > hz] = 0
    return np.fft.irfft(spectrum, len(x)).astype(np.float32)


# Fault -> (input, target) from a voice x and another voice o; and the findings that must be there,
# of those that `ABOUT` lists.
FAULTS: dict[str, tuple[Callable, set[tuple[str, str]]]] = {
    "no sound": (lambda x, o: (b"RIFF", x), {("undecodable", "FAIL")}),
    "another rate": (lambda x, o: (wav(noisy(x, 1), 8000), x), {("format", "FAIL")}),
    "stereo": (
        lambda x, o: (write_wav(to_int16(np.stack([noisy(x, 1), x], 1)), RATE), x),
        {("format", "FAIL")},
    ),
    "float": (lambda x, o: (write_wav(noisy(x, 1), RATE), x), {("format", "FAIL")}),
    "too short": (lambda x, o: (noisy(x, 1)[:-200], x[:-200]), {("format", "FAIL")}),
    "unequal by 1": (lambda x, o: (noisy(x, 1)[:-1], x), {("format", "FAIL"), ("length", "WARN")}),
    "unequal by 20 ms": (
        lambda x, o: (noisy(x, 1)[:-320], x),
        {("format", "FAIL"), ("length", "FAIL")},
    ),
    "identical": (lambda x, o: (x, x), {("identical", "FAIL"), ("si-sdr-high", "WARN")}),
    "nearly identical": (lambda x, o: (noisy(x, 1, 45), x), {("si-sdr-high", "WARN")}),
    "silent input": (lambda x, o: (x * 0, x), {("silent", "FAIL")}),
    "near silence": (
        lambda x, o: (quieter(noisy(x, 1), 70), x),
        {("silent", "FAIL"), ("level", "FAIL")},
    ),
    "mostly silent": (
        lambda x, o: (noisy(dropped(x, 0.15), 1), dropped(x, 0.15)),
        {("active", "WARN")},
    ),
    "almost all silent": (
        lambda x, o: (noisy(dropped(x, 0.03), 1), dropped(x, 0.03)),
        {("active", "FAIL")},
    ),
    "offset": (lambda x, o: (noisy(x, 1) + 0.03, x), {("dc", "WARN")}),
    "clipped": (
        lambda x, o: (np.clip(6 * noisy(x, 1), -0.98, 0.98), x),
        {("clipped", "FAIL"), ("level", "WARN")},
    ),
    "quiet": (lambda x, o: (quieter(noisy(x, 1), 9), x), {("level", "WARN")}),
    "far too quiet": (lambda x, o: (quieter(noisy(x, 1), 25), x), {("level", "FAIL")}),
    "late by 1": (lambda x, o: (late(noisy(x, 1), 1), x), {("delay", "WARN")}),
    "late by 7": (lambda x, o: (late(noisy(x, 1), 7), x), {("delay", "FAIL")}),
    "early by 7": (lambda x, o: (noisy(x, 1), late(x, 7)), {("delay", "FAIL")}),
    "inverted": (lambda x, o: (-noisy(x, 1), x), {("polarity", "FAIL")}),
    "someone else": (lambda x, o: (o, x), {("correlation", "FAIL"), ("si-sdr-low", "WARN")}),
    "slow clock": (lambda x, o: (stretched(noisy(x, 1), 4), x), {("drift", "WARN")}),
    "drowned": (lambda x, o: (noisy(x, 1, -14), x), {("si-sdr-low", "WARN")}),
    "muffled": (
        lambda x, o: (noisy(muffled(x, 3000), 1), muffled(x, 3000)),
        {("bandwidth", "WARN")},
    ),
}
# What these faults bring along by their nature: a shifted or clipped recording has another SI-SDR
# and level, a delayed one drifts at its edges.
CONSEQUENCES = {
    "si-sdr-low",
    "correlation",
    "delay",
    "level",
    "clipped",
    "bandwidth",
    "drift",
    "active",
    "dc",
}


def test_a_clean_set_has_no_findings(tmp_path, voices):
    code, report = check(pair_set(tmp_path, voices), "--strict")
    assert code == 0 and report["findings"] == []
    assert (
        report["examined"]["kind"] == "pairs"
        and report["examined"]["samples"] == 7
        and report["not_graded"] == []
    )
    spread = {row["check"]: row["measured"] for row in report["checks"]}
    assert (
        abs(spread["si-sdr-low"]["median"] - 10) < 0.5
        and spread["delay"]["max"] < 0.1
        and spread["correlation"]["min"] > 0.9
    )


def test_every_fault_of_a_pair_is_found(tmp_path, voices):
    faults = []
    for number, (name, (make, _)) in enumerate(FAULTS.items()):
        x = quieter(voices[7], 0.01 * number)  # so that none is the copy of another
        faults.append(pair(name.replace(" ", "_"), *make(x, voices[6])))
    code, report = check(pair_set(tmp_path, voices, *faults))
    by_key: dict[str, set[tuple[str, str]]] = {}
    for name, level, _, key in found(report):
        by_key.setdefault(key.replace("_", " "), set()).add((name, level))
    assert code == 1 and set(by_key) == set(FAULTS)
    for name, (_, expected) in FAULTS.items():
        assert expected <= by_key[name], name
        assert {check for check, _ in by_key[name] - expected} <= CONSEQUENCES, name


def test_values_that_are_not_finite(tmp_path, voices):
    broken = noisy(voices[7], 1)
    broken[100:103] = np.nan, np.inf, -np.inf
    kind = {**KIND, "dtype": "float32"}
    samples = [
        [
            pair(f"{split}{i}", write_wav(noisy(voices[i], i), RATE), write_wav(voices[i], RATE))
            for i in numbers
        ]
        for split, numbers in (("t", (0, 1)), ("v", (2, 3)))
    ]
    root = write_set(
        tmp_path,
        [*samples[0], pair("bad", write_wav(broken, RATE), write_wav(voices[7], RATE))],
        samples[1],
        kind,
    )
    code, report = check(root)
    assert code == 1 and [
        (f["check"], f["level"], f["key"], f["value"]) for f in report["findings"]
    ] == [("not-finite", "FAIL", "bad", 3.0)]


def test_flac_pairs(tmp_path, voices):
    def some(numbers) -> list[dict]:
        return [
            {
                "__key__": f"{i}",
                "input.flac": write_flac(to_int16(noisy(voices[i], i)), RATE),
                "target.flac": write_flac(to_int16(voices[i]), RATE),
            }
            for i in numbers
        ]

    kind = {**KIND, "fields": ["input.flac", "target.flac"]}
    assert (
        check(write_set(tmp_path, some((0, 1)), some((2, 3)), kind), "--strict")[1]["findings"]
        == []
    )


def test_what_a_sample_declares_is_compared(tmp_path, voices):
    x = voices[7]
    faults = [
        pair("out_of_range", noisy(x, 1), x, snr_db=30.0),
        pair("harm", noisy(x, 2, 5), x, snr_db=12.0, denoiser="wiener"),
        pair("ruin", noisy(x, 3, 1), x, snr_db=15.0, denoiser="wiener"),
        pair("reverberant", noisy(x, 4, 1), x, snr_db=15.0, denoiser="wiener", rir={"t60": 0.5}),
        pair("help", noisy(x, 5, 10), x, snr_db=5.0, denoiser="wiener"),
        pair("not_an_object", noisy(x, 6), x),
    ]
    faults[-1]["json"] = b"[1]"
    _, report = check(pair_set(tmp_path, voices, *faults))
    assert found(report) == [
        ("denoiser", "FAIL", "train", "ruin"),
        ("denoiser", "WARN", "train", "harm"),
        ("snr-declared", "WARN", "train", "out_of_range"),
    ]


def test_copies_and_leaks(tmp_path, voices):
    again = pair("again", noisy(voices[0], 0), voices[0])
    other_noise = pair("other_noise", noisy(voices[0], 77), voices[0])
    leak = pair("leak", noisy(voices[1], 78), voices[1])
    code, report = check(pair_set(tmp_path, voices, again, other_noise, validation=(leak,)))
    assert code == 1 and found(report) == [
        ("duplicate", "WARN", "train", "again"),
        ("duplicate-leak", "FAIL", "validation", "leak"),
    ]
    assert [f["other"] for f in report["findings"]] == ["train/000", "train/001"]


@pytest.mark.parametrize("why", [{"source": "waveform"}, {"kind": {**KIND, "rate": 2_000_000}}])
def test_what_is_not_sound_is_reported_and_not_graded(tmp_path, voices, capsys, why):
    """A detector's pulse and what its shaper makes of it.

    Shifted, offset, of another level and polarity.
    """
    rate = why.get("kind", KIND)["rate"]

    def some(numbers) -> list[dict]:
        return [
            pair(f"{i}", wav(-0.2 * late(voices[i], 40) - 0.1, rate), wav(voices[i], rate))
            for i in numbers
        ]

    root = write_set(tmp_path, some((0, 1, 2)), some((3,)), **{"kind": KIND, **why})
    code, report = check(root, "--strict")
    assert code == 0 and report["findings"] == [] and set(report["not_graded"]) == set(SOUND_ONLY)
    row = next(row for row in report["checks"] if row["check"] == "delay")
    assert row["level"] == "info" and abs(row["measured"]["median"] - 40) < 0.2
    assert "info: reported, not graded, because this is not sound" in capsys.readouterr().out


@pytest.mark.gate
def test_pictures(tmp_path, voices):
    root = pair_set(tmp_path, voices, pair("late", late(noisy(voices[7], 1), 7), voices[7]))
    check(root)
    assert sorted(path.name for path in (root / "audit").iterdir()) == [
        "audit.json",
        "statistics.png",
        "typical.png",
        "worst.png",
    ]
    assert all(
        (root / "audit" / name).stat().st_size > 20_000
        for name in ("statistics.png", "typical.png", "worst.png")
    )


def test_fields_that_are_not_there(tmp_path, voices):
    root = pair_set(tmp_path, voices, kind={**KIND, "fields": ["noisy.wav", "clean.wav"]})
    assert guarded(audit_command.main, [str(root), "--workers", "1"]) == 2


def test_measures_have_their_closed_forms():
    t = np.sin(2 * np.pi * 1000 / RATE * np.arange(LENGTH))
    assert (
        abs(pairs.si_sdr(3 * t + 0.3 * np.cos(2 * np.pi * 1000 / RATE * np.arange(LENGTH)), t) - 20)
        < 1e-6
    )
    x = np.zeros(1000)
    x[100:104], x[200:202], x[300] = 0.95, -0.95, 0.95
    assert clipped_share(x) == 4 / 1000 and clipped_share(0.9 * x) == 0
    half_band = np.sinc(np.arange(-200, 201) / 2) * np.blackman(401)
    assert 0.5 < pairs.bandwidth(np.convolve(rng(0).standard_normal(RATE), half_band)) < 0.53
    assert (
        pairs.measure(np.zeros(10, np.float32), np.zeros(12, np.float32), 1000)["length"] == -0.002
    )


def test_a_room_may_hide_what_belongs_together(tmp_path, voices):
    """In heavy reverberation matched pairs correlate little.

    A WARN down to half the limit; without a room it is another utterance.
    """
    x, o = voices[7], voices[6]
    for share, level in ((0.35, "WARN"), (0.0, "FAIL")):
        far = (
            share * x / np.sqrt((x**2).mean())
            + np.sqrt(1 - share**2) * rng(3).standard_normal(len(x)) * 1.3
        ).astype(np.float32) * 0.05
        observed = far if share else o
        code, report = check(
            pair_set(
                tmp_path / level,
                voices,
                pair("far", observed, x, rir="hall"),
                pair("near", observed, x),
            )
        )
        graded = {
            (f["key"], f["check"]): f["level"]
            for f in report["findings"]
            if f["check"].startswith("correlation")
        }
        assert graded == {("far", "correlation-room"): level, ("near", "correlation"): "FAIL"}


def test_what_the_source_doubts_is_told(tmp_path, voices):
    _, report = check(
        pair_set(
            tmp_path,
            voices,
            pair("odd", noisy(voices[7], 1), voices[7], doubt="drifts by 3 samples"),
        )
    )
    assert [(f["check"], f["level"], f["key"], f["detail"]) for f in report["findings"]] == [
        ("doubt", "WARN", "odd", "drifts by 3 samples")
    ]
