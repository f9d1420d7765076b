"""The benchmarks of training run, and count what they say they count."""

import itertools
import json
import re

import pytest
import torch
from torch import nn

from bench import options, overhead, peers, scaling, straight, training


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(peers.tempfile, "tempdir", str(tmp_path))


@pytest.mark.gate
def test_the_trainer_against_straight_line_pytorch(capsys):
    overhead.on("cpu", quick=True, only="sagan")
    text = capsys.readouterr().out
    rows = {
        name: float(ratio)
        for name, ratio in re.findall(r"^\| ([a-zA-Z].*?) \| \d.* \| ([\d.]+) \|$", text, re.M)
    }
    assert set(rows) == {overhead.OURS, *overhead.OPTIMIZERS["sagan"]} and rows[overhead.OURS] == 1
    assert text.count("asked: at least 0.97") == 2


def test_turns_are_of_equal_length_and_what_warms_up_is_left_out(monkeypatch):
    time = itertools.count()
    monkeypatch.setattr(training, "clock", lambda device: next(time))
    taken = []
    turns = overhead.Turns(
        {"other": (taken.append("other") for _ in itertools.count())}, 3, torch.device("cpu")
    )
    for step in range(10):  # three rounds of the trainer, and the call that ends the last
        turns.before(step)
        taken.append("ours")
    assert taken == 3 * (3 * ["other"] + 3 * ["ours"]) + 3 * ["other"] + ["ours"]
    assert [len(turns.rounds(name)) for name in ("distgan", "other")] == [2, 2]
    assert turns.rounds("other") == [1 / 3, 1 / 3]


def test_by_hand_has_torchs_own_layers():
    from distgan.distributed.ranks import Ranks
    from distgan.nn.image import Discriminator, Generator

    nets = [
        straight.plain(net)
        for net in (Generator(8, 4, 1, (16,), 8, 4, Ranks()), Discriminator(4, 1, (16,), 8))
    ]
    theirs = [
        module
        for net in nets
        for module in net.modules()
        if type(module).__module__.startswith("distgan.nn.normalization")
    ]
    assert not theirs and any(isinstance(module, nn.BatchNorm2d) for module in nets[0].modules())
    assert "torch.nn.utils.parametrizations" in {
        type(module).__module__ for module in nets[1].modules()
    }
    assert nets[1](nets[0](torch.randn(4, 8))).shape == (4,)


def test_options(capsys):
    options.main(quick=True, only="^channels_last$", device="cpu")
    rows = [
        line.split(" | ")[1]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| 4")
    ]
    assert rows == ["float32 (default)", "channels_last"]


def test_an_option_that_fails_or_comes_too_late_costs_no_other(capsys, monkeypatch):
    monkeypatch.setattr(
        options,
        "prepared",
        lambda option, *_: (_ for _ in ()).throw(RuntimeError(f"no {option.name} here\nand more")),
    )
    monkeypatch.setattr(options.time, "monotonic", itertools.count(0, 40).__next__)
    some = [options.DEFAULT, options.Option("b"), options.Option("c")]
    options.table(some, (4,), 16, "cpu", 1.5, quick=True)
    assert re.findall(r"(no \w+.* here|left out)", capsys.readouterr().out) == [
        "no float32 (default) here",
        "no b here",
        "left out",
    ]


def test_time_that_kernels_share_counts_once():
    assert options.union([(0, 4), (1, 2), (3, 6), (8, 9)]) == 7


def test_the_rate_is_that_of_the_steady_part(tmp_path):
    seconds = [0, 10, 20, 21, 22, 23]
    rows = [
        {"step": i, "samples": 16 * i, "seconds": s, "d/loss": 0.5} for i, s in enumerate(seconds)
    ] + [{"step": 6, "valid/d_loss": 0.5}]
    (tmp_path / "journal.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert scaling.rate(tmp_path) == 16


@pytest.mark.nightly
def test_scaling(capsys):
    scaling.main(quick=True, only="inside")
    assert re.search(
        r"\| sagan, groups inside a process \| 16( \| [\d.]+){5} \| (reached|missed) \|",
        capsys.readouterr().out,
    )
