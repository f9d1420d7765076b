"""Too little memory: what a run says, and what `--find-batch` finds."""

import errno
import re

import pytest
import torch

from distgan import cli, train
from distgan.config import loading
from distgan.core.errors import RunError
from distgan.recipes.sagan import Settings
from distgan.training.out_of_memory import is_out_of_memory, per_rank_batches


def settings(*words: str) -> Settings:
    return loading.validate(Settings, {"recipe": "sagan", "data": "-"}, list(words))


def test_what_is_meant_by_too_little_memory():
    assert all(
        is_out_of_memory(error)
        for error in (
            MemoryError(),
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            OSError(errno.ENOMEM, "Cannot allocate memory"),
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate"
                " memory: you tried to allocate 9 bytes"
            ),
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
        )
    )
    assert not any(
        is_out_of_memory(error)
        for error in (
            RuntimeError("shapes differ"),
            OSError(errno.ENOSPC, "x"),
            RunError("out of memory"),
            ValueError(),
        )
    )


@pytest.mark.parametrize(
    ("words", "processes"),
    [
        (["batch=16"], 1),
        (["batch=48"], 2),
        (["batch=36", "bn_group=3"], 3),
        (["batch=7", "bn_group=7"], 2),
    ],
)
def test_sizes_are_those_that_can_be_shared(words, processes):
    asked = settings(*words)
    found = per_rank_batches(asked, processes)
    assert all(
        n * each * processes == asked.batch and asked.batch // n % asked.group == 0
        for n, each in found
    )
    assert [each for _, each in found] == sorted((each for _, each in found), reverse=True)
    assert bool(found) == (asked.batch % processes == 0)


def find(particles, capsys, *words: str) -> tuple[int, str]:
    code = cli.guarded(
        train.main, ["sagan", f"data={particles}", "machine.device=cpu", *words, "--find-batch"]
    )
    captured = capsys.readouterr()
    return code, captured.out + captured.err


@pytest.mark.gate
def test_find_batch(particles, capsys, tmp_path, monkeypatch):
    """Half a gigabyte is torch itself.

    256 samples at once do not go into what is left of the rest.
    """
    monkeypatch.chdir(tmp_path)
    code, output = find(
        particles,
        capsys,
        "batch=256",
        "ngf=16",
        "ndf=16",
        "machine.accumulation=1",
        "--memory=1.2",
        "--processes=1",
    )
    assert code == 0, output
    assert "256 per rank, machine.accumulation=1: does not fit" in output
    each, accumulation = map(
        int, re.search(r"batch 256 = 1 ranks x (\d+) micro-batches x (\d+)", output).groups()[::-1]
    )
    assert each * accumulation == 256 and re.search(
        rf"\n +{each} per rank, machine.accumulation={accumulation}: fits \(at most", output
    )
    assert (
        f"the line to use: distgan train sagan data={particles} machine.device=cpu batch=256 ngf=16"
        f" ndf=16 machine.accumulation={accumulation}\n" in output
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.gate
def test_where_nothing_fits(particles, capsys):
    code, output = find(
        particles, capsys, "batch=4", "bn_group=4", "ngf=4", "ndf=4", "--memory=0.01"
    )
    assert code == 2 and output.count("error: not even 4 samples per rank fit into 0.01 GB") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--processes=0"], "--processes: found '0', allowed: 1 to 4,096"),
        (["--memory=lots"], "--memory: found 'lots', allowed: a number of GB above 0"),
        (["--memory=nan"], "--memory: found 'nan', allowed: a number of GB above 0"),
        (["--processes=3", "batch=16"], "cannot be shared by 3 ranks"),
        (["--memories=3"], "--memories: no such option (did you mean --memory?)"),
    ],
)
def test_wrong_lines(words, said, particles, capsys):
    code, output = find(particles, capsys, *words)
    assert code == 2 and output.count("error: ") == 1 and said in output


@pytest.mark.gate
def test_a_trial_that_fails_for_another_reason_is_no_lack_of_memory(tmp_path, capsys):
    code, output = find(tmp_path / "nowhere", capsys, "batch=4", "--memory=8")
    assert code == 2 and "failed for a reason other than memory: no shards in" in output
