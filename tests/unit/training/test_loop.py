"""The results that a recipe leaves when training has ended."""

import types

from distgan.distributed.ranks import Ranks
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
