"""The results that a recipe leaves when training has ended; checkpoints that a run goes back to."""

import types

import pytest
from players import STATE, players

from distgan.core.clock import Clock
from distgan.core.errors import RunError
from distgan.distributed.ranks import Ranks
from distgan.monitor.decisions import Decision
from distgan.runs import checkpoints
from distgan.training.loop import Loop


def test_results_are_made_whole_and_those_of_before_are_gone(tmp_path, capsys):
    loop, events, files = object.__new__(Loop), [], ["a.png", "b.png"]
    loop.recipe = types.SimpleNamespace(
        results=lambda data, ranks, folder: [(folder / name).touch() for name in files]
    )
    loop.folder = types.SimpleNamespace(
        path=tmp_path, event=lambda name, **details: events.append((name, details))
    )
    loop.data, loop.ranks, loop.last = None, Ranks(), 7
    loop.state = types.SimpleNamespace(best=None)
    loop._results()
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == files
    assert events == [("results", {"files": 2, "step": 7})]
    files.clear()  # as where the settings ask for none
    loop._results()
    assert list(tmp_path.iterdir()) == [] and len(events) == 1
    assert "results are made from the last step: no score was finite" in capsys.readouterr().out


def test_a_run_goes_back_to_no_checkpoint_of_another_run(tmp_path, capsys):
    """Neither in a rollback nor for its results; one of its own serves."""
    loop, mine = object.__new__(Loop), {"id": "1", "settings": {"loss": "hinge"}, "data": "d"}
    stream = {"samples": 12, "seed": 0, "data": "d"}
    loop.folder = types.SimpleNamespace(path=tmp_path, identity=mine)
    data = types.SimpleNamespace(fingerprint_for=lambda run: "d")
    loop.run, loop.data = types.SimpleNamespace(seed=0), data
    loop.ranks, loop.clock = Ranks(), Clock(4, 8)
    loop.state = types.SimpleNamespace(best={"step": 3}, last_healthy_step=3)
    loop._rewind = lambda step: pytest.fail("nothing may be changed")
    for other in (mine | {"settings": {"loss": "wgan"}}, mine | {"data": "e"}):
        state = STATE | stream | {"identity": other}
        checkpoints.save(tmp_path / "checkpoints", 3, checkpoints.held(players()), state)
        with pytest.raises(RunError, match="belongs to another run, 1 "):
            loop._roll_back(loop.clock.at(5), Decision("rollback", "nonfinite"))
        assert loop._best_checkpoint() is None
        assert "belongs to another run" in capsys.readouterr().out
    state = STATE | stream | {"identity": mine}
    checkpoints.save(tmp_path / "checkpoints", 3, checkpoints.held(players()), state)
    assert loop._best_checkpoint() == tmp_path / "checkpoints" / "00000003"
