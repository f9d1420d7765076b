"""Ten steps saved under one engine and number of processes, ten more under another.

The run of one process that was never stopped.
"""

import json

import compare
import pytest
from compare import REFERENCE, STEPS, SYSTEMS, TOLERANCE, Way

HALF = STEPS // 2
ACCUMULATED, DDP2, DDP3 = Way(accumulation=2), Way("torchrun", 2), Way("torchrun", 3)
ZERO1, ZERO2 = Way("torchrun", 2, zero=1), Way("torchrun", 2, zero=2)
# Between them: a row of ways, each of which begins what another one ends. DeepSpeed's own
# checkpoints would refuse another number of processes.
DAILY = [
    ("sagan", DDP2, REFERENCE),
    ("sagan", ZERO2, DDP3),
    ("sagan", REFERENCE, ZERO1),
    ("sagan", ACCUMULATED, DDP2),
]
NIGHTLY = [
    ("sagan", DDP3, ZERO2),
    ("wgan, clip", ZERO2, REFERENCE),
    ("wgan, gradient penalty", DDP2, ZERO1),
    ("sagan, classes", DDP2, REFERENCE),
    ("r3gan, classes", ZERO1, DDP3),
]


def named(cells):
    return {
        "argvalues": cells,
        "ids": [f"{name}: {first.name} -> {then.name}" for name, first, then in cells],
    }


@pytest.fixture(scope="module")
def uninterrupted(sets, tmp_path_factory):
    found = {}

    def run(system):
        if system.name not in found:
            found[system.name] = REFERENCE.train(
                system, sets(system.data), tmp_path_factory.mktemp("uninterrupted") / "run"
            )
        return found[system.name]

    return run


def goes_on(name, first, then, uninterrupted, sets, where):
    system = next(system for system in SYSTEMS if system.name == name)
    folder = first.train(system, sets(system.data), where / "run", steps=HALF)
    then.train(system, sets(system.data), folder)
    resumed = [
        json.loads(text)
        for text in (folder / "events.jsonl").read_text().splitlines()
        if '"resume"' in text
    ]
    assert [event["step"] for event in resumed] == [HALF]  # and not begun again
    whole = uninterrupted(system)
    losses, weights = (
        compare.losses_apart(whole, folder, first=HALF + 1),
        compare.weights_apart(whole, folder, system.networks),
    )
    print(
        f"{name}, {first.name} -> {then.name}: losses {losses:.1e}, "
        + ", ".join(f"{k} {v:.1e}" for k, v in weights.items())
    )
    assert max(losses, *weights.values()) < TOLERANCE


@pytest.mark.parametrize(("name", "first", "then"), **named(DAILY))
def test_it_goes_on(name, first, then, uninterrupted, sets, tmp_path):
    goes_on(name, first, then, uninterrupted, sets, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "first", "then"), **named(NIGHTLY))
def test_it_goes_on_nightly(name, first, then, uninterrupted, sets, tmp_path):
    goes_on(name, first, then, uninterrupted, sets, tmp_path)
