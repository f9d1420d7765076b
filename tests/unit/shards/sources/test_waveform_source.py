"""The physics of the generated detector pulses, and pairs of the user's own as arrays and files."""

import json
import pickle
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.integrate import quad

from distgan.core.errors import ConfigError, DataError
from distgan.core.rng import numpy_generator
from distgan.shards.build.command import command_of
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.sources import waveform
from distgan.shards.sources.waveform import (
    COUPLING,
    DECAY,
    ELECTRON_KEV,
    FULL_SCALE_KEV,
    PEAKING,
    Source,
    preamplified,
    record,
    shaped,
)


def source(**changes) -> Source:
    return Source(
        Namespace(
            **{
                "n": None,
                "length": None,
                "seed": None,
                "noise": None,
                "pairs": None,
                "rate": None,
                **changes,
            }
        )
    )


def records(n: int, length: int = 1024) -> list:
    return [record(numpy_generator(7, "test", i), length) for i in range(n)]


def values(sample: dict, side: str) -> np.ndarray:
    samples, _ = audio_codec.read_wav(sample[f"{side}.wav"])
    assert samples.dtype == np.float32 and samples.shape[1] == 1
    return samples[:, 0]


def klein_nishina(cosine: float, photon: float) -> tuple[float, float]:
    """(differential cross section in units of r_e^2 / 2, energy of the electron), written in the
    photon energies before and after.
    """
    after = photon / (1 + photon / ELECTRON_KEV * (1 - cosine))
    return (after / photon) ** 2 * (after / photon + photon / after - 1 + cosine**2), photon - after


@pytest.mark.parametrize("photon", [356.0, 661.7, 1332.5])
def test_compton_electrons_follow_klein_and_nishina(photon):
    struck = np.array(
        [waveform.compton(numpy_generator(1, "test", i), photon) for i in range(3000)]
    )
    edge = 2 * photon**2 / (ELECTRON_KEV + 2 * photon)
    assert 0 <= struck.min() and 0.98 * edge < struck.max() <= edge, "477 keV for Cs-137"
    total = quad(lambda c: klein_nishina(c, photon)[0], -1, 1)[0]
    mean = quad(lambda c: np.prod(klein_nishina(c, photon)), -1, 1)[0] / total
    assert struck.mean() == pytest.approx(mean, abs=4 * struck.std() / 3000**0.5)
    backwards = quad(lambda c: klein_nishina(c, photon)[0], -1, 0)[0] / total
    assert np.mean(struck > photon - photon / (1 + photon / ELECTRON_KEV)) == pytest.approx(
        backwards, abs=0.04
    )


def test_a_struck_electron_has_44_percent_of_1_mev():
    """The tabulated mean, Attix 1986."""
    assert np.mean(
        [waveform.compton(numpy_generator(2, "test", i), 1000.0) for i in range(3000)]
    ) == pytest.approx(440, abs=20)


def test_resolution_at_662_kev_is_4_7_percent_full_width_at_half_maximum(monkeypatch):
    assert (
        min(waveform.deposit(numpy_generator(3, "test", i)) for i in range(1000))
        >= waveform.THRESHOLD_KEV
    )
    monkeypatch.setattr(waveform, "FULL_ENERGY_SHARE", 1.0)
    energies = np.array([waveform.deposit(numpy_generator(3, "test", i)) for i in range(6000)])
    peak = energies[abs(energies - 661.7) < 100]
    assert 2.355 * peak.std() / peak.mean() == pytest.approx(
        0.047, abs=0.003
    ) and peak.mean() == pytest.approx(661.7, abs=2)
    assert len(peak) / 6000 == pytest.approx(0.4, abs=0.03)
    lower = energies[abs(energies - 356) < 60]
    assert lower.std() / peak.std() == pytest.approx((356 / 661.7) ** 0.5, rel=0.06), (
        "the square root of the energy"
    )


def test_the_preamplifier_rises_decays_and_undershoots_to_a_zero_integral():
    t = np.arange(20 * COUPLING)
    pulse = preamplified(t)
    assert preamplified(np.array([-5.0, 0.0])).tolist() == [0, 0]
    assert pulse.max() == pytest.approx(1, abs=0.01) and 10 <= pulse.argmax() <= 15
    assert preamplified(np.array([220.0]))[0] / preamplified(np.array([40.0]))[0] == pytest.approx(
        np.exp(-180 / DECAY), abs=0.05
    )
    assert pulse.min() == pytest.approx(-DECAY / COUPLING, rel=0.25)
    assert abs(pulse.sum()) < 0.01 * pulse[pulse > 0].sum()


def test_the_target_is_a_semi_gaussian_pulse_as_high_as_the_energy():
    t = np.linspace(-50, 300, 3501)
    pulse = shaped(t)
    assert (
        pulse.max() == pytest.approx(1)
        and t[pulse.argmax()] == pytest.approx(PEAKING)
        and not pulse[t <= 0].any()
    )
    for given, target, photons in records(40):
        late = [
            (a, e)
            for i, (a, e) in enumerate(photons)
            if a > 40
            and all(abs(a - b) > 150 for j, (b, _) in enumerate(photons) if j != i)
            and a + PEAKING < 1020
        ]
        for arrival, energy in late:
            at = round(arrival + PEAKING)
            assert target[at] == pytest.approx(energy / FULL_SCALE_KEV, rel=0.02, abs=1e-3)
            step = given[at - 15 : at - 5].mean() - given[int(arrival) - 10 : int(arrival)].mean()
            assert step == pytest.approx(0.92 * energy / FULL_SCALE_KEV, rel=0.15, abs=0.06), (
                "the preamplifier steps by the energy"
            )


def test_records_hold_a_pulse_pile_up_and_stay_in_the_range_of_the_adc():
    some = records(100)
    inputs, targets = (np.stack([r[k] for r in some]) for k in (0, 1))
    assert inputs.dtype == targets.dtype == np.float32
    assert targets.min() == 0 and targets.max() <= 1 and np.all(targets.max(1) > 1e-3)
    assert inputs.min() >= -0.25 and inputs.max() <= 1
    steps = (inputs.astype(np.float64) + 0.25) / (1.25 / 4096)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    assert 0.01 < np.abs(targets).mean() < 0.03 < np.abs(inputs - targets).mean() < 0.15
    assert 2.5 < np.mean([len(photons) for *_, photons in some]) < 4, (
        "3e-3 per sample, at least one"
    )
    assert -0.15 < np.median(inputs) < 0, "the baseline sags with the rate"
    assert np.median(inputs[:, -200:]) == pytest.approx(np.median(inputs[:, :200]), abs=0.03), (
        "as much history at the start as at the end"
    )


def test_coloured_noise_falls_with_frequency_and_its_ends_do_not_meet():
    noise = np.stack([waveform._coloured(numpy_generator(i, "test"), 512, 1.0) for i in range(200)])
    power = np.mean(np.abs(np.fft.rfft(noise * np.hanning(512))) ** 2, axis=0)
    assert power[8] / power[64] == pytest.approx(64, rel=0.4) and power[32] / power[
        200
    ] == pytest.approx((200 / 32) ** 2, rel=0.4), "1 / f^2"
    assert np.abs(noise[:, -1] - noise[:, 0]).mean() > 10 * np.abs(np.diff(noise)).mean()


def test_a_generated_sample_is_two_wav_files_and_the_truth():
    waveforms = source(n=4)
    assert waveforms.check(1).issues == []
    assert waveforms.sample == {
        "kind": "pair",
        "rate": 100_000_000,
        "fields": ["input.wav", "target.wav"],
        "dtype": "float32",
        "length": 1024,
        "longest": 1024,
    }
    sample = waveforms.make(2)
    given, target, photons = record(numpy_generator(0, "waveform", 2), 1024)
    np.testing.assert_array_equal(values(sample, "input"), given)
    np.testing.assert_array_equal(values(sample, "target"), target)
    about = json.loads(sample["json"])
    np.testing.assert_allclose(about["energy_kev"], [e for _, e in photons], atol=0.01)
    np.testing.assert_allclose(about["arrival_samples"], [a for a, _ in photons], atol=0.001)
    assert about["group"] == waveforms.keys[2] == waveforms.group(2)
    assert sample == source(n=9).make(2) != source(seed=1).make(2)


def test_rows_of_an_npz_are_written_as_they_are(tmp_path):
    """float64 beyond ±1, 16-bit integers.

    A group; a row that is not finite, one that is constant.
    """
    rng = np.random.default_rng(0)
    given, target = rng.normal(0, 50, (6, 32)), rng.integers(-3000, 3000, (6, 32), dtype=np.int16)
    given[1, 5], target[2] = np.nan, 7
    np.savez(
        tmp_path / "pairs.npz",
        input=given,
        target=target,
        group=np.array(["a", "a", "b", "b", "c", "c"]),
    )
    waveforms = source(pairs=str(tmp_path / "pairs.npz"), rate=500)
    check = waveforms.check(1)
    assert [(f.sample, f.usable) for f in check.issues] == [(1, False), (2, True)]
    assert "not finite" in check.issues[0].reason and "target is constant" in check.issues[1].reason
    assert waveforms.sample["rate"] == 500 and waveforms.sample["length"] == 32
    assert [waveforms.group(i) for i in range(6)] == ["a", "a", "b", "b", "c", "c"]
    sample = pickle.loads(pickle.dumps(waveforms)).make(4)  # noqa: S301  as the writer processes get it
    np.testing.assert_array_equal(values(sample, "input"), given[4].astype(np.float32))
    np.testing.assert_array_equal(values(sample, "target"), target[4].astype(np.float32))


def test_an_npz_names_itself_by_its_contents(tmp_path):
    pairs = np.arange(12.0).reshape(3, 4)
    np.savez(tmp_path / "a.npz", input=pairs, target=pairs)
    before = source(pairs=str(tmp_path / "a.npz")).options
    assert before["rate"] == 100_000_000
    np.savez(tmp_path / "a.npz", input=pairs + 1, target=pairs)
    assert source(pairs=str(tmp_path / "a.npz")).options != before


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"input": np.zeros((3, 4)), "target": np.zeros((3, 5))}, r"\[3, 4\], target \[3, 5\]"),
        ({"input": np.zeros(4), "target": np.zeros(4)}, r"\[n, length\]"),
        ({"input": np.zeros((3, 4))}, "no array target; it has input"),
        ({"input": np.zeros((3, 4)), "target": np.zeros((3, 4), dtype=complex)}, "complex"),
        (
            {"input": np.zeros((3, 4)), "target": np.zeros((3, 4)), "group": np.zeros(2)},
            r"group is \[2\]",
        ),
    ],
)
def test_arrays_that_are_no_pairs_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "pairs.npz", **arrays)
    with pytest.raises(ConfigError, match=message):
        source(pairs=str(tmp_path / "pairs.npz"))


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "pairs.npz", input=np.array([{}, {}]), target=np.zeros((2, 4)))
    with pytest.raises(DataError, match="allow_pickle"):
        source(pairs=str(tmp_path / "pairs.npz"))
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(DataError, match=r"text\.npz cannot be read"):
        source(pairs=str(tmp_path / "text.npz"))


def folder(path: Path) -> Path:
    """input/ and target/: a .npy pair, a .wav pair of 8 kHz, one of unequal lengths."""
    for side, extra in (("input", 0), ("target", 1)):
        (path / side / "deep").mkdir(parents=True)
        np.save(path / side / "deep" / "one.npy", np.arange(20) + extra)
        soundfile.write(path / side / "two.wav", np.linspace(-0.5, 0.5, 50), 8000, subtype="FLOAT")
        np.save(path / side / "three.npy", np.arange(20.0 + extra))
    return path


def test_folders_of_arrays_and_sounds(tmp_path):
    waveforms = source(pairs=str(folder(tmp_path)))
    check = waveforms.check(1)
    assert [(f.name, f.usable) for f in check.issues] == [
        ("three.npy", False)
    ] and "20 samples, target 21" in check.issues[0].reason
    assert waveforms.sample | {"fields": 0} == {
        "kind": "pair",
        "rate": 8000,
        "fields": 0,
        "dtype": "float32",
        "length": 20,
        "longest": 50,
    }
    sample = waveforms.make(waveforms.keys.index("deep_one"))
    np.testing.assert_array_equal(values(sample, "target"), np.arange(20) + 1)
    np.testing.assert_allclose(
        values(waveforms.make(waveforms.keys.index("two")), "input"),
        np.linspace(-0.5, 0.5, 50),
        atol=1e-6,
    )


def test_more_noise_is_more_of_the_same_noise():
    """The pulses, their target and the offset stay as they are."""
    quiet, usual, loud = (
        record(numpy_generator(7, "test", 0), 512, noise) for noise in (0.0, 1.0, 3.0)
    )
    for other in (usual, loud):
        np.testing.assert_array_equal(other[1], quiet[1])
    step = 1.25 / 2**12
    np.testing.assert_allclose(
        loud[0] - quiet[0], 3 * (usual[0] - quiet[0]), atol=4 * step
    )  # but for the ADC's rounding
    assert source().options == source(noise=1.0).options, (
        "folders made before there was this option stay complete"
    )
    assert source(noise=16.0).options["noise"] == 16


def test_wrong_options_are_named_at_once():
    with pytest.raises(
        ConfigError,
        match=(
            r"(?s)--n: found '1', allowed: 2 or more.*--length: found '8', allowed: 128"
            r" to.*--noise:"
            r" found '-2.0', allowed: 0 to 100.*--seed: found '-1'.*--rate is for pairs of your own"
        ),
    ):
        command_of("waveform").parse(
            ["OUT", "n=1", "length=8", "--noise", "-2.0", "--seed", "-1", "rate=5"]
        )
    with pytest.raises(
        ConfigError, match=r"(?s)--n is for generated records.*--from nowhere: no such"
    ):
        command_of("waveform").parse(["OUT", "n=5", "--from", "nowhere"])
