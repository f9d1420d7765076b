"""Pictures of sound: what is in them, and that neither names nor numbers of samples keep them from
being written.
"""

import os

import numpy as np
import pytest
from PIL import Image
from scipy import signal

from distgan.core.errors import RunError
from distgan.outputs import signal_plots as figures

RATE = 8000
HOSTILE = ["$\\frac{$", "名前" * 40, "a\nb\x00\x1b[31m", "_hidden", "<script>"]


def tone(hz, n=4096, rate=RATE):
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(n) / rate)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def colour(path, name):
    """Pixels of about this colour."""
    wanted = np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(pixels(path) - wanted).max(axis=2) < 60).sum())


@pytest.mark.parametrize("n", [1, 512, 20000])
def test_an_overlay_is_written_for_any_length(tmp_path, n):
    figures.overlay(
        tmp_path / "a.png",
        [(f"clip{i}", tone(50, n), tone(60, n), tone(60, n)) for i in range(2)],
        RATE,
    )
    assert pixels(tmp_path / "a.png").shape[1] == 1020


def test_an_overlay_shows_all_three_and_what_is_left(tmp_path):
    figures.overlay(
        tmp_path / "a.png", [("clip", tone(50, 400), tone(80, 400), tone(80, 400) * 0.5)], RATE
    )
    assert all(
        colour(tmp_path / "a.png", name) > 100
        for name in (figures.GRAY, figures.GREEN, figures.ORANGE, figures.RED)
    )


def test_the_same_picture_is_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        figures.overlay(tmp_path / name, [("clip", tone(50), tone(80), tone(80))], RATE)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_enlarged_stretch_is_the_loudest():
    wave = np.full(5000, 0.01)
    wave[3100:3200] = 1.0
    found = figures._loudest(wave, 600)
    assert found.start <= 3100 and found.stop >= 3200 and found.stop - found.start == 600


def test_a_tone_stands_at_its_frequency_with_its_power():
    level, end_s = figures._levels(tone(1000.0), RATE)
    frequency = np.linspace(0, RATE / 2, len(level))
    middle = level[:, level.shape[1] // 2]
    assert frequency[middle.argmax()] == pytest.approx(1000, abs=RATE / 256)
    assert middle.max() == pytest.approx(
        20 * np.log10(0.5), abs=1.5
    )  # of the amplitude, but for the loss between two lines of the transform
    assert middle[frequency > 2000].max() < middle.max() - 50
    assert end_s == 4096 / RATE


def test_levels_are_those_of_scipy():
    wave = np.random.default_rng(0).normal(size=4096)
    mine, _ = figures._levels(wave, RATE)
    window = np.hanning(256)
    _, _, theirs = signal.stft(
        wave, window=window, nperseg=256, noverlap=192, boundary="zeros", padded=False
    )
    theirs = 20 * np.log10(2 * np.abs(theirs))  # scipy's scale is that of a two-sided spectrum
    frames = min(mine.shape[1], theirs.shape[1])
    np.testing.assert_allclose(mine[:, :frames], theirs[:, :frames], atol=1e-6)


def test_spectrograms_have_one_colour_scale(tmp_path):
    """A tone 40 dB down is darker, not scaled up to the same brightness."""
    for name, row in (
        ("both.png", [("loud", tone(1000)), ("soft", tone(1000) / 100)]),
        ("same.png", [("loud", tone(1000)), ("loud", tone(1000))]),
    ):
        figures.spectrograms(tmp_path / name, [row], RATE)
    width = pixels(tmp_path / "both.png").shape[1]
    bright = [
        [
            int((pixels(tmp_path / name)[30:-40, part].sum(axis=2) > 560).sum())
            for part in (slice(60, width // 2 - 40), slice(width // 2, width - 130))
        ]
        for name in ("both.png", "same.png")
    ]
    assert bright[0][0] > 300 and bright[0][1] < bright[0][0] / 4
    assert bright[1][1] == pytest.approx(bright[1][0], rel=0.2)


@pytest.mark.gate
def test_names_are_only_text(tmp_path):
    figures.overlay(
        tmp_path / "a.png",
        [(name, tone(50, 64), tone(80, 64), tone(80, 64)) for name in HOSTILE],
        RATE,
    )
    figures.spectrograms(tmp_path / "b.png", [[(name, tone(50)) for name in HOSTILE]], RATE)


@pytest.mark.gate
def test_what_is_not_finite_or_silent_is_drawn(tmp_path):
    broken = tone(80)
    broken[100:] = np.nan
    broken[0] = np.inf
    figures.overlay(
        tmp_path / "a.png",
        [
            ("some", tone(50), tone(80), broken),
            ("all", tone(50), tone(80), np.full(4096, np.nan)),
            ("silent", *[np.zeros(4096)] * 3),
        ],
        RATE,
    )
    figures.spectrograms(
        tmp_path / "b.png",
        [
            [("broken", broken), ("silent", np.zeros(4096)), ("short", tone(50, 3))],
            [("alone", tone(50))],
        ],
        RATE,
    )
    figures.spectrograms(tmp_path / "c.png", [[("silent", np.zeros(10))]], RATE)


@pytest.mark.parametrize("rate", [1, 44100])
def test_any_rate(tmp_path, rate):
    figures.overlay(tmp_path / "a.png", [("clip", *[tone(rate / 10, 500, rate)] * 3)], rate)
    figures.spectrograms(tmp_path / "b.png", [[("clip", tone(rate / 10, 500, rate))]], rate)


def test_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*taken\.png"):
        figures.overlay(tmp_path / "taken.png", [("clip", *[tone(50, 64)] * 3)], RATE)
    assert os.listdir(tmp_path) == ["taken.png"]
