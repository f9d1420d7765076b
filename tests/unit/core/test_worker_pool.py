"""The parallel map, and what a source is promised.

In a file of its own: the spawned processes import it to find its functions.
"""

import ast
import os
import signal
import time
from pathlib import Path

import pytest
from shard_sets import contents

from distgan.core.errors import DataError
from distgan.core.worker_pool import ordered_map
from distgan.shards.build.plan import build, finish
from distgan.shards.format.reader import ShardSet
from distgan.shards.sources._base import SourceReport

OPTIONS = {"validation": 0.1, "per-shard": 40, "drop-unreadable": False, "drop-low-quality": False}


def double(item: int) -> int:
    return 2 * item


def fail_at_7(item: int) -> int:
    if item == 7:
        raise DataError("item 7 is bad")
    return item


def die_at_7(item: int) -> int:
    if item == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def meet(folder: Path) -> int:
    """Returns once two processes are here."""
    (folder / str(os.getpid())).touch()
    limit = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < limit:
        time.sleep(0.005)
    return os.getpid()


def test_parallel_results_are_in_order_and_failures_come_through():
    assert list(ordered_map(double, range(500), 2)) == list(range(0, 1000, 2))
    with pytest.raises(DataError, match="item 7 is bad"):
        list(ordered_map(fail_at_7, range(40), 2))
    with pytest.raises(DataError, match="a worker process was killed"):
        list(ordered_map(die_at_7, range(40), 2))


def test_two_processes_work_at_once_and_this_one_does_not(tmp_path):
    processes = set(ordered_map(meet, [tmp_path] * 8, 2, chunk_size=1))
    assert len(processes) == 2 and os.getpid() not in processes


class Batches:
    """What it makes of a sample names the others of its batch."""

    origin: dict = {}
    sample = {"kind": "pair"}

    def __init__(self, n: int = 120):
        self.keys = [f"k{i:03d}" for i in range(n)]

    def check(self, workers: int) -> SourceReport:
        return SourceReport()

    def group(self, i: int) -> str:
        return self.keys[i]

    def make_batch(self, numbers: list[int]) -> list[dict]:
        return [
            {"__key__": self.keys[i], "txt": repr([self.keys[k] for k in numbers]).encode()}
            for i in numbers
        ]


def write(source, out: Path, workers: int = 1, task=None) -> None:
    build("batches", source, out, OPTIONS, workers, task)


def test_batches_are_stretches_of_16_for_any_workers_tasks_and_interruptions(tmp_path, capsys):
    write(Batches(), tmp_path / "one")
    assert "sharding: 120/120 pairs" in capsys.readouterr().out
    train = [
        (sample["__key__"], ast.literal_eval(sample["txt"].decode()))
        for sample in ShardSet(tmp_path / "one" / "train")
    ]
    keys = [key for key, _ in train]
    for shard in range(0, len(keys), 40):
        for start in range(shard, min(shard + 40, len(keys)), 16):
            batch = keys[start : min(start + 16, shard + 40)]
            assert [seen for key, seen in train if key in batch] == [batch] * len(batch)
    write(Batches(), tmp_path / "three", workers=3)
    for task in ((1, 2), (0, 2)):
        write(Batches(), tmp_path / "tasks", task=task)
    finish(tmp_path / "tasks", "")
    write(Batches(), tmp_path / "again")
    (tmp_path / "again" / "train" / "train-000001.json").unlink()
    write(Batches(), tmp_path / "again")
    for name in ("three", "tasks", "again"):
        assert contents(tmp_path / name) == contents(tmp_path / "one"), name


class Liar(Batches):
    def make_batch(self, numbers: list[int]) -> list[dict]:
        return [
            sample | {"__key__": "k" + sample["__key__"]} for sample in super().make_batch(numbers)
        ]


class Uneven(Batches):
    """The last sample of a batch has a field more."""

    def make_batch(self, numbers: list[int]) -> list[dict]:
        made = super().make_batch(numbers)
        return [*made[:-1], made[-1] | {"more": b""}]


class Changing(Batches):
    """All samples of the second batch have a field more."""

    batches = 0

    def make_batch(self, numbers: list[int]) -> list[dict]:
        self.batches += 1
        return [
            sample | ({"more": b""} if self.batches == 2 else {})
            for sample in super().make_batch(numbers)
        ]


class Thrifty(Batches):
    def make_batch(self, numbers: list[int]) -> list[dict]:
        return super().make_batch(numbers)[:-1]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (Liar(), DataError, "was made with the key 'kk.*, expected 'k"),
        (Uneven(), DataError, r"sample k... has the fields \['more', 'txt'\], expected \['txt'\]"),
        (
            Changing(),
            DataError,
            r"train-000000.tar: sample k... has the fields \['more', 'txt'\], expected \['txt'\]",
        ),
        (Thrifty(), ValueError, "shorter"),
    ],
)
def test_a_source_that_breaks_its_promise_is_stopped_and_leaves_nothing_begun(
    tmp_path, source, error, message
):
    with pytest.raises(error, match=message):
        write(source, tmp_path / "p")
    assert set(contents(tmp_path / "p")) == {"dataset.json"}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("k007", "key 'k007' of the source occurs twice"),
        ("../k", "key '../k' of the source is malformed"),
        ("/k", "malformed"),
        ("a/../../k", "malformed"),
        ("k.1", "malformed"),
        ("", "malformed"),
    ],
)
def test_wrong_keys_are_refused_before_anything_is_written(tmp_path, key, message):
    source = Batches()
    source.keys[90] = key
    with pytest.raises(DataError, match=f"{message}.*; nothing was written"):
        write(source, tmp_path / "p")
    assert not list(tmp_path.iterdir())
