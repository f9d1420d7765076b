"""The wgan system in two processes is that of one, and faults put back are noticed."""

import pytest
from processes import (
    FEW,
    ROUNDING,
    STEPS,
    TOLERANCE,
    broken,
    ends_differ_by,
    largest_difference,
    line,
    run,
)

SMALL = ["ngf=4", "ndf=4", "latent=8", "batch=12", "n_critic=2"]


def train(command, flowers, where, *more, steps=STEPS):
    """That many steps in float64; the run folder."""
    where.mkdir(exist_ok=True)
    words = [
        f"data={flowers}",
        f"epochs={0.44 * steps}",
        "precision=float64",
        "evaluate.samples=12",
        f"machine.folder={where / 'run'}",
        *SMALL,
        *more,
    ]
    run(command, "wgan_flowers", *words, cwd=where)
    return where / "run"


MODES = {"clipping": [], "penalty": ["penalty=10", "optimizer=adam"]}


@pytest.fixture(scope="module")
def references(flowers, tmp_path_factory):
    """Run folders of one process, by mode."""
    return {
        name: train(line("python"), flowers, tmp_path_factory.mktemp("reference"), *words)
        for name, words in MODES.items()
    }


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_give_the_same_losses(mode, flowers, references, tmp_path):
    found = train(line("torchrun", 2), flowers, tmp_path, *MODES[mode])
    print(
        f"{mode}: largest relative difference"
        f" {largest_difference(references[mode], found, STEPS):.1e}"
    )
    assert largest_difference(references[mode], found, STEPS) < ROUNDING
    assert ends_differ_by(references[mode], found) < 1e-6


@pytest.mark.parametrize(
    "words",
    [
        ["bn_group=6"],
        ["penalty=10", "optimizer=adam", "bn_group=6"],
        pytest.param(["bn_group=3"], marks=pytest.mark.nightly),
    ],
    ids=" ".join,
)
def test_accumulation_gives_the_same_losses(words, flowers, tmp_path):
    """Two micro-batches on each of 2 ranks.

    A group is a micro-batch of both, or of one. Twenty steps of it are in
    tests/nightly/test_matrix.py.
    """
    whole = train(line("python"), flowers, tmp_path / "a", *words, steps=FEW)
    parts = train(
        line("torchrun", 2), flowers, tmp_path / "b", *words, "machine.accumulation=2", steps=FEW
    )
    assert largest_difference(whole, parts, FEW) < ROUNDING
    assert ends_differ_by(whole, parts) < 1e-6


FAULTS = {
    "statistics of real and generated images mixed": (
        "clipping",
        """
        from distgan.recipes import wgan_flowers
        wgan_flowers.Recipe._one_pass = property(lambda self: True, lambda self, value: None)
    """,
    ),
    "the same points of penalty on every rank": (
        "penalty",
        """
        import numpy as np
        from distgan.core import rng
        usual = rng.uniform
        def uniform(seed, purpose, index, *salt):
            index = np.arange(len(index)) if purpose == "penalty" else index
            return usual(seed, purpose, index, *salt)
        rng.uniform = uniform
    """,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_put_back_is_noticed(fault, flowers, references, tmp_path):
    mode, text = FAULTS[fault]
    found = train(
        line("torchrun", 2, broken(tmp_path, text)), flowers, tmp_path, *MODES[mode], steps=FEW
    )
    assert largest_difference(references[mode], found, FEW) > TOLERANCE
