"""The timbre system learns, and is the same run however it is started or continued."""

import json

import pytest
import shard_sets
import torch
from processes import broken, ends_differ_by, final, line, run

from distgan.training.loop import STOPPED

RESOLUTIONS = ((64, 16, 64), (32, 8, 24))


SMALL = [
    "g_width=4",
    "g_fft=64",
    "g_hop=16",
    "d_width=2",
    f"stft_resolutions={json.dumps(RESOLUTIONS)}",
    "segment_length=256",
    "batch=6",
    "ema=0.5",
    "g_lr=1e-2",
    "d_lr=5e-3",
]


TRAIN = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 pairs of 400 frames to train on, 5 held out."""
    return shard_sets.damaged(tmp_path_factory.mktemp("damaged") / "set", TRAIN)


def train(command, folder, where, *more, code=0):
    """24 steps: 12 before the GAN loss starts, 12 with it."""
    where.mkdir(exist_ok=True)
    run(
        command,
        "timbre",
        f"data={folder}",
        "epochs=6",
        "precision=float64",
        f"machine.folder={where / 'run'}",
        "gan_start_epoch=3",
        "lr_every=2",
        "sample_every=1000",
        *SMALL,
        *more,
        cwd=where,
        code=code,
    )
    return where / "run"


@pytest.fixture(scope="module")
def reference(folder, tmp_path_factory):
    return train(line("python"), folder, tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize(
    ("way", "processes", "more"),
    [("torchrun", 2, []), ("torchrun", 3, []), ("python", 1, ["machine.accumulation=2"])],
)
def test_every_way_of_starting_gives_the_same_run(
    way, processes, more, folder, reference, tmp_path
):
    found = train(line(way, processes), folder, tmp_path, *more)
    assert losses_apart(reference, found) < 1e-9
    assert ends_differ_by(reference, found) < 1e-9


def test_a_run_that_was_continued_ends_alike(folder, reference, tmp_path):
    """Stopped before the GAN loss starts, and within it.

    Its schedules go on from where they were.
    """
    for step, code in ((5, STOPPED), (17, STOPPED), (0, 0)):
        stop = (
            "import os, signal\nfrom distgan.training import loop\ndue = loop.require_due\ndef"
            f" stopped(batches, layout, rank, now):\n    if now.step == {step} > 0:\n       "
            " os.kill(os.getpid(), signal.SIGTERM)\n    due(batches, layout, rank,"
            " now)\nloop.require_due = stopped\n"
        )
        found = train(line("python", program=broken(tmp_path, stop)), folder, tmp_path, code=code)
    mine, theirs = final(found), final(reference)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert rates(found) == rates(reference) and len(set(rates(found).values())) == 3


def test_warm_restarts_go_on_on_other_numbers_of_processes(folder, tmp_path):
    """Two processes, then three, then one: rates to the bit, in the second and third cosine too."""
    words = ("lr_every=6", "lr_restarts.first=1", "lr_restarts.factor=2", "lr_restarts.least=0.1")
    whole = train(line("python"), folder, tmp_path / "whole", *words)
    parts = tmp_path / "parts"
    for processes, epochs in ((2, "3.25"), (3, "4.5"), (1, "6")):
        way = line("torchrun", processes) if processes > 1 else line("python")
        found = train(way, folder, parts, *words, f"epochs={epochs}")
    assert rates(found) == rates(whole) and len(set(rates(whole).values())) > 12
    assert losses_apart(whole, found) < 1e-9
    mine, theirs = final(found), final(whole)
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in theirs) < 1e-9


def losses_apart(a, b) -> float:
    """The largest relative difference of any number of both losses of all 24 steps.

    D has none in the first 12.
    """
    a, b = (
        [
            row
            for row in map(json.loads, (folder / "journal.jsonl").read_text().splitlines())
            if "g/loss" in row
        ]
        for folder in (a, b)
    )
    assert [row["step"] for row in a] == [row["step"] for row in b] == list(range(1, 25))
    assert [row["step"] for row in a if "d/loss" in row] == list(range(13, 25))
    return max(
        abs(x[name] - y[name]) / abs(x[name])
        for x, y in zip(a, b, strict=True)
        for name in x
        if name.endswith(("loss", "l1", "stft", "adversarial"))
    )


def rates(folder) -> dict[int, float]:
    """Learning rate of G by step."""
    rows = map(json.loads, (folder / "journal.jsonl").read_text().splitlines())
    return {row["step"]: row["g/lr"] for row in rows if "g/lr" in row}


def test_it_learns_to_repair(reference):
    rows = [json.loads(text) for text in (reference / "journal.jsonl").read_text().splitlines()]
    valid = [row for row in rows if "valid/stft" in row]
    assert (
        valid[-1]["valid/stft"]
        < 0.92 * valid[-1]["valid/input_stft"]
        == 0.92 * valid[0]["valid/input_stft"]
    )
    assert valid[0]["valid/stft"] == pytest.approx(valid[0]["valid/input_stft"], rel=1e-3), (
        "it starts from the input"
    )
    assert "valid/adversarial" in valid[-1] and "valid/adversarial" not in valid[0]
    assert (reference / "results" / "measures.csv").is_file()
