"""Numbers on their way to the journal."""

import json
import math
import types

import pytest
import torch

from distgan.config.sections import Machine
from distgan.core.clock import Clock
from distgan.distributed.ranks import Ranks
from distgan.monitor.journal import RECENT
from distgan.training.journal_writer import JournalWriter

CLOCK = Clock(per_step=4, train=8)


class Folder:
    def __init__(self):
        self.rows = []

    def journal(self, rows):
        self.rows += [json.loads(json.dumps(row)) for row in rows]


@pytest.fixture
def written():
    folder = Folder()
    return types.SimpleNamespace(
        folder=folder, writer=JournalWriter(Ranks(Machine(device="cpu")), folder)
    )


def numbers(**values):
    return {name.replace("_", "/"): torch.tensor(value) for name, value in values.items()}


def test_a_recipe_may_begin_to_log_more(written):
    """As where a GAN loss starts in the middle of what is fetched together."""
    for step in (1, 2):
        written.writer.add(CLOCK.at(step), numbers(g_loss=float(step)))
    for step in (3, 4):
        written.writer.add(CLOCK.at(step), numbers(d_loss=10.0 * step, g_loss=float(step)))
    assert written.writer.flush() == {"d/loss": 40.0, "g/loss": 4.0}
    assert [
        (row["step"], row["epoch"], row.get("d/loss"), row["g/loss"]) for row in written.folder.rows
    ] == [(1, 0.5, None, 1.0), (2, 1.0, None, 2.0), (3, 1.5, 30.0, 3.0), (4, 2.0, 40.0, 4.0)]
    assert (
        written.folder.rows[-1]["samples_per_second"] > 0
        and "samples_per_second" not in written.folder.rows[0]
    )


def test_rows_left_out_of_the_journal_are_evaluated_and_go_on_with_a_checkpoint(written):
    for step in range(1, 6):
        written.writer.add(CLOCK.at(step), numbers(g_loss=float(step)), show=step % 3 == 0)
    written.writer.flush()
    assert [row["step"] for row in written.folder.rows] == [3]
    assert [row["step"] for row in written.writer.history] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in written.writer.unshown] == [1, 2, 4, 5]
    written.writer.add(CLOCK.at(6), numbers(g_loss=6.0), show=True)
    written.writer.flush()
    assert all("samples_per_second" in row for row in written.folder.rows)


def test_what_is_not_finite_is_null_and_named(written):
    written.writer.add(CLOCK.at(1), numbers(d_loss=math.nan, g_loss=math.inf))
    written.writer.flush()
    (row,) = written.folder.rows
    assert (
        row["d/loss"] is None and row["g/loss"] is None and row["nonfinite"] == ["d/loss", "g/loss"]
    )


def test_nothing_waits_twice(written):
    written.writer.add(CLOCK.at(1), numbers(g_loss=1.0))
    written.writer.flush()
    assert written.writer.flush() is None and len(written.folder.rows) == 1


def test_watch_sees_the_same_before_and_after_a_restart(written):
    rows = [
        {"step": i, "epoch": i / 10, "seconds": i, "g/loss": 1.0} for i in range(1, RECENT + 700)
    ]
    for start in range(0, len(rows), 90):
        written.writer.write(rows[start : start + 90])
    again = JournalWriter(Ranks(Machine(device="cpu")), Folder())
    again.set_history(rows)
    assert again.history == written.writer.history and len(again.history) < len(rows)


def test_one_process_has_no_slowest_rank(written):
    with written.writer.working():
        written.writer.add(CLOCK.at(1), numbers(g_loss=1.0))
    written.writer.flush()
    assert not [name for name in written.folder.rows[0] if name.startswith("time/")]
