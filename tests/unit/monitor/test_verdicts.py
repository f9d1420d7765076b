"""What the monitor says of healthy and of ill runs, for each loss, beside what a practitioner would
say. Each journal is looked at as the run would, at every evaluation.

The stored journals are of real runs; tests/fixtures/journals/README.md says of which.
"""

import math
import random
from pathlib import Path

import pytest
from journals import collapsed, pairs, repaired

from distgan.config.loading import validate
from distgan.monitor.decisions import evaluate_rules
from distgan.monitor.journal import read_journal
from distgan.recipes._catalog import resolve_recipe

STORED = Path(__file__).parents[2] / "fixtures" / "journals"
ONSET, SOON = 120, 40  # epochs; evaluations are 10 apart


def falling(epoch):
    return 20 + 180 / (1 + epoch / 60)


def flat(epoch):
    """A score that stops falling at ONSET."""
    return falling(min(epoch, ONSET))


def after(value, usual):
    """`usual`, and from ONSET on within ten epochs `value`."""
    return lambda epoch: usual + (value - usual) * min(max(epoch - ONSET, 0) / 10, 1)


def invented(usual, score=falling, lines=240, **changes):
    """A journal of one line an epoch: numbers or functions of the epoch, by key, with noise.

    In `changes` `_` stands for `/`, the first one.
    """
    draw, rows = random.Random(0), []
    checks = {"valid/overfit": 0.1, "valid/diversity": 0.8, "valid/nearest": 0.95}
    norms = {"g/grad_norm": 1.0, "d/grad_norm": 1.0}
    changes = {key.replace("_", "/", 1): value for key, value in changes.items()}
    for epoch in range(lines):
        now = {
            key: (value(epoch) if callable(value) else value) * (1 + 0.1 * draw.uniform(-1, 1))
            for key, value in (norms | usual | checks | changes).items()
        }
        at = {"step": 18 * epoch, "epoch": float(epoch)}
        rows.append(at | {"seconds": 1.0} | {k: v for k, v in now.items() if k[:5] != "valid"})
        if epoch % 10 == 9:
            found = {k: v for k, v in now.items() if k[:5] == "valid"}
            rows.append(at | found | {"eval/frechet_standin": score(epoch)})
    return rows


def spiked(rows):
    """One line in forty with a gradient a million times as long."""
    return [
        row | {"g/grad_norm": 1e6, "d/grad_norm": 1e6} if row["step"] % (18 * 40) == 0 else row
        for row in rows
    ]


VANILLA = {"d/loss": 0.65, "d/real_prob": 0.66, "d/fake_prob": 0.32, "g/loss": 1.1}
HINGE = {"d/loss": 1.3, "g/loss": 0.4}
LSGAN = {"d/loss": 0.45, "g/loss": 0.35}
R3GAN = {"d/loss": 0.7, "d/adversarial": 0.6, "d/told_apart": 0.8, "g/loss": 0.9}
WGAN = {  # the estimate rises while the critic learns, then falls
    "d/wasserstein": lambda epoch: 15 * min((epoch + 1) / 40, 1) / (1 + epoch / 200),
    "g/loss": 3.0,
}
STRONG = {"d_real_prob": after(0.86, 0.66), "d_fake_prob": after(0.04, 0.32)}
WON = {"d_adversarial": after(1e-4, 0.6), "d_loss": after(0.01, 0.7), "d_told_apart": 0.99}
DEAD = {"d_loss": after(0, 1.3), "d_grad_norm": lambda epoch: float(epoch < ONSET)}
CP = {"penalty": 10, "optimizer": "adam"}
WEAK = pairs(
    8,
    lambda e: 0.4 if e < 3 else 1.2,
    lambda e: 0.6 + 0.1 * math.sin(e),
    lambda e: 0.3,
    lambda e: 0.3,
)

# Name: recipe and settings, journal, warnings that a practitioner would give.
TABLE = {
    "vanilla, healthy": ("sagan", {}, invented(VANILLA), set()),
    "vanilla, D strong, G follows": ("sagan", {}, invented(VANILLA, **STRONG), set()),
    "vanilla, D strong": ("sagan", {}, invented(VANILLA, flat, **STRONG), {"d_too_strong"}),
    "vanilla, collapse behind good losses": (
        "sagan",
        {},
        invented(
            VANILLA,
            lambda epoch: falling(epoch) * (1 if epoch < ONSET else 3),
            valid_diversity=after(0.1, 0.8),
        ),
        {"mode_collapse"},
    ),
    "vanilla, D knows its images": (
        "sagan",
        {},
        invented(VANILLA, valid_overfit=after(0.9, 0.1)),
        {"d_overfitting"},
    ),
    "vanilla, copies": ("sagan", {}, invented(VANILLA, valid_nearest=after(0.2, 0.95)), {"copies"}),
    "vanilla, gradients explode under clipping": (
        "sagan",
        {},
        invented(VANILLA, g_grad_norm=after(1e6, 1)),
        {"gradients_exploding"},
    ),
    "vanilla, gradients rise and spike": (
        "sagan",
        {},
        spiked(invented(VANILLA, flat, 200, d_grad_norm=lambda epoch: 1 + epoch / 50)),
        set(),
    ),
    "hinge, healthy": ("sagan", {"loss": "hinge"}, invented(HINGE), set()),
    "hinge, D at 0 without a gradient": (
        "sagan",
        {"loss": "hinge"},
        invented(HINGE, flat, **DEAD),
        {"d_loss_low"},
    ),
    "lsgan, healthy": ("sagan", {"loss": "lsgan"}, invented(LSGAN), set()),
    "lsgan, D has won": (
        "sagan",
        {"loss": "lsgan"},
        invented(LSGAN, flat, d_loss=after(0.004, 0.45)),
        {"d_loss_low"},
    ),
    "r3gan, healthy": ("r3gan", {}, invented(R3GAN), set()),
    "r3gan, D has won": ("r3gan", {}, invented(R3GAN, flat, **WON), {"d_loss_low"}),
    "wgan_gp, healthy": ("wgan_flowers", CP, invented(WGAN), set()),
    "wgan_gp, drifts": (
        "wgan_flowers",
        CP,
        invented(WGAN, flat, d_wasserstein=lambda epoch: 2 * 250 ** max(epoch / ONSET - 1, 0)),
        {"critic_drift"},
    ),
    "wgan in sagan, drifts": (
        "sagan",
        {"loss": "wgan"},
        invented({"d/loss": lambda epoch: -2 - 3 * max(epoch - ONSET, 0)}, flat),
        {"critic_drift"},
    ),
    "pairs, healthy": ("waveform", {}, repaired(12), set()),
    "pairs, D has won": (
        "waveform",
        {},
        collapsed(12),
        {"d_loss_low", "gan_loss_stagnant", "overfitting", "validation_rising"},
    ),
    "pairs, D weak": ("waveform", {}, WEAK, {"d_loss_high"}),
}


def warned(recipe, settings, rows, window=None):
    """Return {rule: epoch of its first warning}, of looks at every evaluation."""
    module, tree = resolve_recipe(recipe)
    run = validate(module.Settings, {**tree, "data": "x", **settings})
    watch = run.watch.model_copy(update={"window": window} if window else {})
    values, first = run.model_dump(mode="json"), {}
    for i, row in enumerate(rows, 1):
        if any(key.startswith("eval/") for key in row):
            for finding in evaluate_rules(rows[:i], watch, values):
                if finding.level == "warning":
                    first.setdefault(finding.rule, row["epoch"])
    return first


@pytest.mark.parametrize("name", TABLE)
def test_the_monitor_says_what_a_practitioner_would_say(name):
    recipe, settings, rows, expected = TABLE[name]
    first = warned(recipe, settings, rows)
    assert first.keys() - {"score_flat"} == expected
    if expected and recipe != "waveform":
        assert ONSET < min(first.values()) <= ONSET + SOON


@pytest.mark.parametrize(
    ("journal", "recipe", "settings", "expected"),
    [
        ("wgan_gp", "wgan_flowers", CP, {}),
        ("r3gan", "r3gan", {}, {}),
        ("pairs-hinge", "waveform", {"loss": "hinge"}, {}),
        ("hinge", "sagan", {"loss": "hinge"}, {"mode_collapse": 110}),
        ("hinge-blobs", "sagan", {"loss": "hinge"}, {"mode_collapse": 75}),
    ],
)
def test_and_of_real_runs(journal, recipe, settings, expected):
    """Of which every tenth step is kept, so a window of 3 lines is one of 30 steps."""
    rows = read_journal(STORED / f"{journal}.jsonl")
    assert len(rows) > 100
    first = warned(recipe, settings, rows, window=3)
    assert {rule: round(epoch) for rule, epoch in first.items()} == expected
