"""Each criterion of the documents: met, not met, and not yet to be said."""

import math
from pathlib import Path
from typing import get_args

import pytest
import yaml
from journals import collapsed, journal, pairs, repaired

from distgan.config.loading import _Loader
from distgan.monitor.decisions import evaluate_rules
from distgan.monitor.moves import Rule
from distgan.monitor.settings import WAVEFORM, Watch
from distgan.monitor.success.criteria import criteria

PAGE = Path(__file__).parents[4] / "docs/watch.md"


def of(rows, watch=WAVEFORM, config=None, warnings=()):
    return {found.name: found for found in criteria(rows, config or {}, watch, list(warnings))}


def met(*args, **more):
    return {name: found.met for name, found in of(*args, **more).items()}


# ---- waveform
WAVEFORM_NAMES = {
    "trivial output",
    "D loss",
    "GAN loss of G",
    "training and validation L1",
    "generalisation gap",
    "warnings",
}


def beside(rows, share):
    """Zeros and the input score 1; the output is below both on this share."""
    more = {"valid/beats_trivial": share, "valid/zeros_l1": 1.0, "valid/input_l1": 1.0}
    return [row | (more if "valid/l1" in row else {}) for row in rows]


def test_the_repaired_run_meets_every_criterion():
    said = of(beside(repaired(12), 0.9))
    assert said.keys() == WAVEFORM_NAMES and all(found.met for found in said.values())
    assert "in 0.2–0.7" in said["D loss"].required and said["D loss"].measured.endswith(
        "in epochs 6 to 12"
    )


def test_the_failing_run_meets_none():
    events = [
        {"event": "warning", "rule": finding.rule, "level": finding.level, "epoch": 8.0}
        for finding in evaluate_rules(collapsed(12), WAVEFORM)
    ]
    rows = beside(collapsed(12), 0.3)
    said = of(rows, warnings=events)
    assert met(rows, warnings=events) == dict.fromkeys(WAVEFORM_NAMES, False)
    assert "outside in 7 of 7, first in epoch 6" in said["D loss"].measured
    assert (
        "at most 6 in a row" in said["GAN loss of G"].measured
        or "at most 7 in a row" in said["GAN loss of G"].measured
    )
    assert (
        said["warnings"].measured.startswith(f"{len(events)}: ")
        and "d_loss_low (epoch 8)" in said["warnings"].measured
    )


def test_a_run_that_is_too_young_is_not_judged():
    said = of(repaired(2))
    assert {name: found.met for name, found in said.items()} == {
        "D loss": None,
        "GAN loss of G": None,
        "training and validation L1": True,
        "generalisation gap": True,
        "trivial output": None,
        "warnings": True,
    }
    assert (
        "no whole epoch after epoch 5" in said["D loss"].measured
        and "3 are needed" in said["GAN loss of G"].measured
    )
    young = [{"step": 0, "epoch": 0.0, "valid/l1": 0.5}]
    assert set(met(young).values()) == {None, True} and of(young)[
        "generalisation gap"
    ].measured.startswith("no validation with training")
    assert criteria([], {}, WAVEFORM, []) == []


def test_one_criterion_fails_alone():
    def run(
        d_loss=lambda e: 0.4,
        gan=lambda e: 0.6 + 0.05 * (-1) ** int(e),
        train=lambda e: 0.5 - 0.02 * e,
        valid=lambda e: 0.52 - 0.02 * e,
    ):
        return {
            name
            for name, ok in met(pairs(12, d_loss, gan, train, valid, noise=0.01)).items()
            if ok is False
        }

    assert run() == set()
    assert run(d_loss=lambda e: 0.4 if e < 9 else 0.75) == {"D loss"}
    assert run(d_loss=lambda e: 0.1 if e < 4 else 0.4) == set()  # the first epochs do not count
    assert run(gan=lambda e: 0.6) == {"GAN loss of G"}
    assert (
        run(gan=lambda e: 0.6 + 0.1 * (math.ceil(e - 1e-9) // 2 % 2)) == set()
    )  # every other change is none: never three in a row
    assert run(train=lambda e: 0.3, valid=lambda e: 0.32) == {"training and validation L1"}
    assert run(valid=lambda e: 0.65 - 0.02 * e) == {"generalisation gap"}


def test_notes_are_no_warnings():
    assert of(repaired(), warnings=[{"rule": "real_prob_low", "level": "note", "epoch": 3.0}])[
        "warnings"
    ].met
    assert not of(repaired(), warnings=[{"rule": "real_prob_low", "epoch": 3.0}])[
        "warnings"
    ].met  # events of an earlier version have no level


# ---- sagan, wgan_flowers
def test_sagan():
    rows = journal(noise=0.02, **{"d/fake_prob": lambda t: 0.1 + 0.3 * t})
    floor = {"floor/real": 2.0, "floor/samples": 150, "floor/real_coverage": 0.95}
    good = {"floor/generated": 3.0, "floor/coverage": 0.8, "valid/nearest": 0.9} | floor
    good["valid/diversity"] = 0.8
    said = of([row | (good if "valid/overfit" in row else {}) for row in rows], Watch())
    names = ["diversity", "coverage", "frechet_standin", "distance from training images"]
    names += ["D(x)", "D(G(z))", "G and D losses"]
    assert {name: found.met for name, found in said.items()} == dict.fromkeys(names, True)
    assert (
        "FID" not in said and "-fold" in said["frechet_standin"].measured
    )  # below 50 is asked of FID only: the stand-in has another scale
    collapsed = {"floor/generated": 5.0, "floor/coverage": 0.1, "valid/nearest": 0.2} | floor
    collapsed["valid/diversity"] = 0.1
    failing = [row | (collapsed if "valid/overfit" in row else {}) for row in rows]
    assert met(failing, Watch()) == met(rows, Watch()) | dict.fromkeys(names[:4], False)
    noise = [row | {"valid/diversity": 3.6} for row in rows]
    assert "noise" in of(noise, Watch())["diversity"].fault
    bad = journal(
        noise=0.02,
        score=lambda epoch: 100 + epoch,
        **{
            "d/fake_prob": lambda t: 0.4 - 0.3 * t,
            "d/real_prob": lambda t: 0.45,
            "g/loss": lambda t: 6.0,
        },
    )
    unmeasured = dict.fromkeys(["diversity", "coverage", "distance from training images"])
    labels = {"real_label": 0.9, "fake_label": 0.0}
    assert met(bad, Watch(), labels) == dict.fromkeys(said, False) | unmeasured | {"D(x)": None}
    assert of(bad, Watch(), labels)["D(x)"].state == "unreachable"
    assert "equilibrium for these labels is 0.45" in of(bad, Watch(), labels)["D(x)"].measured
    lost = [row | ({"d/real_prob": 0.2} if "d/real_prob" in row else {}) for row in bad]
    assert of(lost, Watch(), labels)["D(x)"].state == "not met"  # worse than a D that is at rest
    assert set(met(journal(lines=12), Watch()).values()) == {None}


@pytest.mark.parametrize("score, ok", [(60.0, False), (49.0, True)])
def test_fid_below_fifty(score, ok):
    rows = [
        {"step": i, "epoch": float(i), "eval/fid": value}
        for i, value in enumerate([150.0, score, 90.0])
    ]
    said = met(rows, Watch())
    assert said["FID"] is ok and said["fid"] is None  # without its floor
    biased = [row | {"floor/real": 70.0, "floor/samples": 150} for row in rows]
    assert of(biased, Watch())["FID"].state == ("met" if ok else "unreachable")


def test_the_capacity_ranges_are_those_of_its_section():
    """The section that docs/watch.md gives for the capacity study."""
    with open(PAGE, encoding="utf-8") as file:
        block = next(
            text
            for text in file.read().split("```yaml\n")[1:]
            if "capacity" in text.split("```")[0]
        ).split("```")[0]
    watch = Watch(**yaml.load(block, _Loader)["watch"])
    assert watch.healthy == {
        "d/real_prob": (0.75, 0.85),
        "d/fake_prob": (0.35, 0.5),
        "d/loss": (0.3, 0.8),
        "g/loss": (0.5, 1.5),
    }
    good = {
        "d/real_prob": lambda t: 0.8,
        "d/fake_prob": lambda t: 0.4,
        "d/loss": lambda t: 0.5,
        "g/loss": lambda t: 1.0,
    }
    said = of(journal(noise=0.02, **good), watch)
    assert (
        [said[name].met for name in ("D(x)", "D(G(z))", "D loss", "G loss")] == [True] * 4
        and "in 0.3–0.8" in said["D loss"].required
        and "in 0.5–1.5" in said["G loss"].required
    )
    assert not any(
        of(journal(noise=0.02, **{key: lambda t: 0.2 for key in good}), watch)[name].met
        for name in ("D(x)", "D(G(z))", "D loss", "G loss")
    )


def test_a_critic_whose_distance_falls_from_its_peak():
    def rows(distance):
        return [
            {
                "step": i,
                "epoch": i / 10,
                "seconds": 1.0,
                "d/loss": -distance(i),
                "d/wasserstein": distance(i),
            }
            for i in range(1, 301)
        ] + [
            {"step": 300 + i, "epoch": 30.0 + i, "eval/frechet_standin": 9.0 - i} for i in range(3)
        ]

    unbounded = Watch(unbounded=True)
    falls = met(rows(lambda i: min(i, 200) - max(i - 200, 0)), unbounded)
    assert falls["Wasserstein estimate"] and falls["frechet_standin"] is None
    assert met(rows(lambda i: i), unbounded)["Wasserstein estimate"] is False
    assert met(rows(lambda i: i)[:20], unbounded)["Wasserstein estimate"] is None


# ---- timbre
def test_repaired_audio_beats_its_input():
    def validation(epoch, score, **numbers):
        usual = {
            "si_sdr": 9.0,
            "input_si_sdr": 8.0,
            "lsd": 6.0,
            "input_lsd": 7.0,
            "stft": 0.8,
            "input_stft": 0.9,
            "l1": 0.1,
            "beats_input": 0.9,
        }
        return {"step": int(epoch), "epoch": epoch, "eval/stft": score} | {
            f"valid/{key}": value for key, value in (usual | numbers).items()
        }

    names = ["SI-SDR", "log-spectral distance", "multi-resolution STFT", "SI-SDR, clip by clip"]
    assert met([validation(0.0, 3.0)]) == dict.fromkeys(names)  # untrained
    assert met([validation(0.0, 3.0), validation(5.0, 1.0)]) == dict.fromkeys(names, True)
    for name, key, worse in (
        ("SI-SDR", "si_sdr", 7.9),
        ("log-spectral distance", "lsd", 7.1),
        ("multi-resolution STFT", "stft", 0.91),
        ("SI-SDR, clip by clip", "beats_input", 0.5),
    ):
        assert met([validation(5.0, 1.0, **{key: worse})]) == dict.fromkeys(names, True) | {
            name: False
        }
    rows = [validation(0.0, 9.0), validation(5.0, 1.0), validation(9.0, 2.0, si_sdr=1.0)]
    assert (
        of(rows)["SI-SDR"].met
        and of(rows)["SI-SDR"].measured == "9 against 8 dB at epoch 5, the best checkpoint"
    )


def test_the_page_on_rules_names_every_rule_and_threshold_with_its_default():
    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    for name, field in Watch.model_fields.items():
        assert f"`{name}`" in text or f"watch.{name}" in text or f"`{name}=" in text, name
        if isinstance(field.default, float) and name not in (
            "release",
            "d_loss_floor",
            "score_flat_change",
        ):
            assert any(
                f"`{name}`{between}{field.default:g}" in text for between in (" = ", " (")
            ), name
    for rule in get_args(Rule):
        assert f"`{rule}`" in text, rule
    for block in text.split("```yaml\n")[1:]:
        Watch(**yaml.load(block.split("```")[0], _Loader)["watch"])
