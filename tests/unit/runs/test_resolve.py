"""The code that a run of one's own recipe was trained with."""

import json
from pathlib import Path

import pytest

from distgan import train
from distgan.core.errors import RunError
from distgan.recipes import _catalog
from distgan.recipes._own_code import unload
from distgan.runs.resolve import require_code

TEXT = (Path(_catalog.__file__).parent / "templates" / "image.py").read_text()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(TEXT)
    yield tmp_path
    unload()


@pytest.mark.parametrize("record", [None, "x", {"digest": "0"}, {"digest": "0", "copy": "../x"}])
def test_a_run_that_does_not_tell_its_code_is_asked_about_it(here, record):
    module, run, _ = train.plan(["mine.py", "data=d"])
    assert require_code(run, module.code, here) is None  # nothing has begun
    identity = run.identity("0") | {"code": record}
    (here / "identity.json").write_text(json.dumps(identity))
    with pytest.raises(RunError, match=r"digest unknown, now [\s\S]*add code=accept"):
        require_code(run, module.code, here)
    accepted = run.model_copy(update={"code": "accept"})
    change = {"before": "unknown", "after": module.code.digest, "parts": []}
    assert require_code(accepted, module.code, here) == change
    identity["settings"]["recipe"] = "sagan"  # RunFolder refuses it as another run's
    (here / "identity.json").write_text(json.dumps(identity))
    assert require_code(run, module.code, here) is None
