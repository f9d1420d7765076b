"""One run, any cluster: how a run is started does not change what it computes.

In float64 two ways of starting a run differ only by rounding, 1e-16, and the losses agree to about
1e-14. In float32 the same rounding, 1e-7, moves an activation across the kink of a ReLU within a
few steps, and one crossing changes the gradient by about 1e-3: docs/equality.md has the figures.
"""

import pytest
from broken_trainers import NAN_AT
from processes import (
    FEW,
    ROUNDING,
    STEPS,
    TINY,
    TOLERANCE,
    broken,
    ends_differ_by,
    journal,
    largest_difference,
    line,
    run,
)


@pytest.fixture(scope="module")
def reference(particles, tmp_path_factory):
    return train(line("python"), particles, tmp_path_factory.mktemp("reference"))


def train(command, particles, where, *more, epochs=5, code=0, returns="folder", cold=None):
    """Train for a little over 20 steps and return the run folder, or the output."""
    output = run(
        command,
        "sagan",
        f"data={particles}",
        f"epochs={epochs}",
        "precision=float64",
        f"machine.folder={where / 'run'}",
        *TINY,
        *more,
        cwd=where,
        code=code,
        cold=cold,
    )
    return output if returns == "output" else where / "run"


@pytest.mark.gate
@pytest.mark.parametrize(
    ("way", "processes"), [("torchrun", 3), ("distgan", 1), ("torchrun", 2), ("accelerate", 2)]
)
def test_every_way_of_starting_gives_the_same_losses(
    way, processes, particles, reference, tmp_path
):
    run_folder = train(line(way, processes), particles, tmp_path, cold=True)
    found = largest_difference(reference, run_folder, STEPS)
    print(f"{way} with {processes}: largest relative difference {found:.1e}")
    assert found < TOLERANCE
    assert found < ROUNDING
    assert ends_differ_by(reference, run_folder) < 1e-6  # scores are made of float32 features


@pytest.fixture(scope="module")
def float32_reference(particles, tmp_path_factory):
    return train(line("python"), particles, tmp_path_factory.mktemp("float32"), "precision=float32")


@pytest.mark.gate
@pytest.mark.parametrize(("way", "processes"), [("torchrun", 3), ("accelerate", 2)])
def test_float32_agrees_where_no_kink_is_crossed(
    way, processes, particles, float32_reference, tmp_path
):
    """The default precision at a width of 4.

    So few activations that hardly one of them changes sign in 20 steps.
    """
    found = largest_difference(
        float32_reference,
        train(line(way, processes), particles, tmp_path, "precision=float32"),
        STEPS,
    )
    print(f"float32, {way} with {processes}: largest relative difference {found:.1e}")
    assert found < TOLERANCE


@pytest.mark.gate
@pytest.mark.parametrize("group", [6, 12], ids=["groups inside a rank", "groups that span both"])
def test_accumulation_gives_the_same_losses(group, particles, tmp_path):
    """Two micro-batches of 6 on each of 2 ranks, two updates of D and of G a step: against one
    process that takes all 24 at once.

    Eight steps, of the work of eight of the others each; tests/nightly/test_matrix.py has twenty,
    of every recipe.
    """
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ask = ["batch=24", f"bn_group={group}", "d_steps=2", "g_steps=2"]
    whole = train(line("python"), particles, tmp_path / "a", *ask, epochs=7)
    parts = train(
        line("torchrun", 2), particles, tmp_path / "b", *ask, "machine.accumulation=2", epochs=7
    )
    assert largest_difference(whole, parts, FEW) < ROUNDING
    assert ends_differ_by(whole, parts) < 1e-6


@pytest.mark.gate
def test_decoding_processes_deliver_the_same_samples(particles, reference, tmp_path):
    """With data that is not kept in memory, DataLoader workers decode."""
    found = train(line("python"), particles, tmp_path, "machine.resident_mb=0", "machine.workers=2")
    assert largest_difference(reference, found, STEPS) == 0


FAULTS = {
    "noise drawn per rank": (
        """
        import torch
        from distgan.data import loader
        def noise(self, seed, purpose, size, total):
            return torch.randn(len(self.real), size)
        loader.MicroBatch.noise = noise
    """
    ),
    "the same noise on every rank": (
        """
        from distgan.data import loader
        from distgan.core import rng
        def noise(self, seed, purpose, size, total):
            return rng.normal(seed, purpose, self.batch_index, (len(self.real), size))
        loader.MicroBatch.noise = noise
    """
    ),
    "batch statistics of each rank alone": (
        """
        from distgan.nn import normalization
        normalization.GroupBatchNorm2d._across = normalization.GroupBatchNorm2d._inside
    """
    ),
    "gradients not averaged": (
        """
        from distgan.engine import player
        player.Player.__call__ = lambda self, *args: self.engine.local(*args)
    """
    ),
}


@pytest.mark.gate
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_put_back_is_noticed(fault, particles, reference, tmp_path):
    program = broken(tmp_path, FAULTS[fault])
    apart = (
        fault == "gradients not averaged"
    )  # ranks that hold other weights are refused when they are to be saved
    output = train(
        line("torchrun", 2, program),
        particles,
        tmp_path,
        code=1 if apart else 0,
        returns="output",
        epochs=1.7,
    )
    assert largest_difference(reference, tmp_path / "run", FEW) > TOLERANCE
    assert apart == ("rank 1 holds other values than rank 0" in output)


def test_a_loader_that_shards_twice_fails_at_the_first_step(particles, tmp_path):
    program = broken(
        tmp_path,
        """
        from distgan.data import loader
        usual = loader.Stream._positions
        def positions(self, batch):
            return (p[::2].repeat(2) for p in usual(self, batch))
        loader.Stream._positions = positions
    """,
    )
    output = run(
        line("python", program=program),
        "sagan",
        f"data={particles}",
        "epochs=1",
        *TINY,
        cwd=tmp_path,
        code=None,
    )
    assert "step 1, rank 0: the batch holds stream positions" in output


def test_numbers_that_are_not_finite_are_skipped_and_shown(particles, tmp_path):
    """One update in five, and in one of them the bar is given its numbers."""
    program = broken(tmp_path, NAN_AT.format("len(calls) % 5 == 0"))
    rows = journal(
        train(
            line("python", program=program), particles, tmp_path, "machine.flush_steps=1", epochs=3
        )
    )
    assert 1 <= sum(row["d/skipped"] for row in rows.values()) < len(rows)


@pytest.mark.gate
@pytest.mark.parametrize("journal_every", [1, 4])
def test_a_run_that_skips_all_stops_at_the_same_step_whatever_is_journalled(
    journal_every, particles, tmp_path
):
    """One rank alone has the bad numbers; all skip, and one message tells it."""
    program = broken(tmp_path, NAN_AT.format("os.environ['RANK'] == '1'"))
    output = run(
        line("torchrun", 2, program),
        "sagan",
        f"data={particles}",
        f"machine.folder={tmp_path / 'run'}",
        "epochs=9",
        "max_skips=6",
        f"machine.journal_every={journal_every}",
        "machine.flush_steps=3",
        *TINY,
        cwd=tmp_path,
        code=1,
    )
    assert (
        output.count(
            "error: bad numbers: 12 of the last 12 updates of D had a loss or gradient that is not"
            " finite, up to step 20; there is no healthy checkpoint to go back to"
        )
        == 1
    )
    assert "[rank" not in output
    assert sorted(journal(tmp_path / "run")) == [
        step for step in range(1, 21) if step % journal_every == 0
    ]


@pytest.mark.gate
@pytest.mark.parametrize("word", ["epochs=1", "machine.flush_steps=2"])
def test_ranks_with_other_settings_are_refused(word, particles, tmp_path):
    """Of two nodes one has an older run file: that ended in a time-out, or in gloo's abort."""
    key = word.partition("=")[0]
    program = broken(
        tmp_path, f"import os, sys\nif os.environ['RANK'] == '1':\n    sys.argv.append('{word}')\n"
    )
    output = run(
        line("torchrun", 2, program),
        "sagan",
        f"data={particles}",
        "epochs=2",
        *TINY,
        cwd=tmp_path,
        code=1,
    )
    assert (
        output.count(f"error: the setting {key} differs among ranks: rank 0: ") == 1
        and "[rank" not in output
    )


def test_networks_that_start_apart_are_refused(particles, tmp_path):
    """DDP sends rank 0's weights to all, and no buffers.

    Spectral norm's vectors, drawn by another version of torch, would stay different.
    """
    program = broken(
        tmp_path,
        "import os, torch\nseed = torch.manual_seed\ntorch.manual_seed = lambda n: seed(n +"
        " int(os.environ['RANK']))\n",
    )
    output = run(
        line("torchrun", 2, program),
        "sagan",
        f"data={particles}",
        "epochs=2",
        *TINY,
        cwd=tmp_path,
        code=1,
    )
    assert (
        output.count("error: the digest of the initial networks differs among ranks: rank 0: ") == 1
        and "[rank" not in output
    )


@pytest.mark.gate
def test_ranks_with_other_engines_are_refused(particles, tmp_path):
    """Of two nodes one has another configuration of accelerate's, which is no setting of the run.

    That ended in a time-out.
    """
    program = broken(
        tmp_path,
        "import os\nif os.environ['RANK'] == '1':\n    os.environ['ACCELERATE_USE_DEEPSPEED'] ="
        " 'true'\n",
    )
    output = run(
        line("torchrun", 2, program),
        "sagan",
        f"data={particles}",
        "epochs=2",
        *TINY,
        cwd=tmp_path,
        code=1,
    )
    assert (
        output.count(
            "error: the requested engine differs among ranks: rank 0: DDP {}, rank 1:"
            " DeepSpeed ZeRO 0 {}"
        )
        == 1
    )
    assert "[rank" not in output


def test_a_run_that_is_asked_to_stop_in_its_last_step_is_done(particles, tmp_path):
    """The epoch has five steps."""
    late = (
        "import os, signal\nfrom distgan.training import loop\ndue = loop.require_due\ndef"
        " late(batches, layout, rank, now):\n    if now.step == 4:\n        os.kill(os.getpid(),"
        " signal.SIGTERM)\n    due(batches, layout, rank, now)\nloop.require_due = late\n"
    )
    output = run(
        line("python", program=broken(tmp_path, late)),
        "sagan",
        f"data={particles}",
        f"machine.folder={tmp_path / 'run'}",
        "epochs=1",
        *TINY,
        cwd=tmp_path,
    )
    assert "asked to stop" in output and "finished; next" in output
