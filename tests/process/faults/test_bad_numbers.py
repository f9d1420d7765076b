"""A loss or gradient that is not finite, on any rank.

All skip, the batch is written down, too many of them lead back to a good checkpoint, then to the
end.
"""

import json

import numpy as np
import pytest
import shard_sets as small
from broken_trainers import FROM_STEP_6
from processes import TINY, broken, events, final, journal, line, run
from safetensors.torch import load_file

from distgan.shards.codecs import audio as audio_codec

BROKEN = 7  # the number of the training sample with a NaN
WAVEFORM = [
    "base_filters=2",
    "num_layers=2",
    "base_filters_d=2",
    "num_layers_d=2",
    "epochs=2",
    "machine.device=cpu",
    "ema=0.9",
]
# At every save each rank says what it holds.
DIGESTS = """
    import os
    from distgan.runs import checkpoints
    usual = checkpoints.held
    def held(players):
        print("digest", os.environ["RANK"], checkpoints.digest(players), flush=True)
        return usual(players)
    checkpoints.held = held
"""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """24 pairs of float32, of which one holds a NaN."""

    def sample(i):
        target = np.random.default_rng(i).uniform(-0.1, 0.1, 64).astype(np.float32)
        if i == BROKEN:
            target[40] = np.nan
        return {
            "__key__": f"{i:06d}",
            "input.wav": audio_codec.write_wav(np.nan_to_num(target) + np.float32(0.01), 1000),
            "target.wav": audio_codec.write_wav(target, 1000),
            "json": b"{}",
        }

    about = {
        "kind": "pair",
        "rate": 1000,
        "fields": ["input.wav", "target.wav"],
        "dtype": "float32",
        "length": 64,
        "longest": 64,
    }
    return small.write(tmp_path_factory.mktemp("nan") / "pairs", about, sample, 24, 4, 10)


@pytest.mark.parametrize(
    "engine",
    [["machine.engine=ddp"], ["machine.engine=deepspeed", "machine.zero_stage=0"]],
    ids=["ddp", "zero0"],
)
def test_a_nan_in_one_ranks_batch(engine, pairs, tmp_path):
    if "machine.engine=deepspeed" in engine:
        pytest.importorskip("deepspeed", reason="pip install 'distgan[deepspeed]'")
    output = run(
        line("torchrun", 2, broken(tmp_path, DIGESTS)),
        "waveform",
        f"data={pairs}",
        f"machine.folder={tmp_path / 'run'}",
        *WAVEFORM,
        *engine,
        cwd=tmp_path,
    )
    rows = journal(tmp_path / "run")
    skipped = [step for step, row in rows.items() if row["d/skipped"]]
    assert len(rows) == 6 and len(skipped) == 2  # once in each epoch
    assert skipped == [step for step, row in rows.items() if row["g/skipped"]]
    # Both ranks end with the same finite weights.
    said = [text.split()[1:] for text in output.splitlines() if text.startswith("digest ")]
    assert {rank for rank, _ in said} == {"0", "1"}, output
    assert [digest for rank, digest in said if rank == "0"] == [
        digest for rank, digest in said if rank == "1"
    ]
    assert all(
        value.isfinite().all()
        for value in final(tmp_path / "run").values()
        if value.is_floating_point()
    )
    # The batch is written down by the rank that had it, and the sample is named.
    assert output.count(f"sample {BROKEN:06d} holds values that are not finite") == 4
    for step in skipped:
        for player in "DG":
            folder = tmp_path / "run/attempts/000/bad" / f"{step:08d}-{player}"
            told, held = (
                json.loads((folder / "batch.json").read_text()),
                load_file(folder / "samples.safetensors"),
            )
            (one,) = [sample for sample in told["samples"] if not sample["finite"]]
            at = told["samples"].index(one)
            assert (told["step"], one["sample"], one["key"]) == (step, BROKEN, f"{BROKEN:06d}")
            assert (
                one["position"] // 8 == step - 1
                and held["positions"][at] == one["position"]
                and held["numbers"][at] == BROKEN
            )
            assert (
                held["samples"].shape == (len(told["samples"]), 2, 64)
                and held["samples"][at, 1, 40].isnan()
            )
            bad = [
                rank
                for rank, row in enumerate(told["losses"])
                if any(isinstance(value, str) for value in row)
            ]
            assert one["rank"] in bad and {sample["rank"] for sample in told["samples"]} == set(bad)


def test_too_many_lead_back_to_a_good_checkpoint_with_lower_rates(particles, tmp_path):
    program = broken(tmp_path, FROM_STEP_6.format("self.run.g_lr > 1.5e-4"))
    output = run(
        line("torchrun", 2, program),
        "sagan",
        f"data={particles}",
        f"machine.folder={tmp_path / 'run'}",
        "epochs=6",
        "rollback_every=1",
        "max_skips=3",
        "machine.checkpoint_every=0.5",
        "machine.flush_steps=2",
        *TINY,
        cwd=tmp_path,
    )
    (back,) = events(tmp_path / "run", "rollback")
    assert (back["rule"], back["from_step"], back["to_step"], back["changes"]["g_lr"]) == (
        "bad_numbers",
        20,
        5,
        1e-4,
    )
    assert "rollback because of bad_numbers: g_lr 2e-4→1e-4" in output
    rows = journal(tmp_path / "run")
    assert list(rows) == list(range(1, max(rows) + 1)) and not any(
        row["d/skipped"] for row in rows.values()
    )
    assert (tmp_path / "run/DONE").exists()


# ---- one process
