"""Which code counts as checked: that of this digest, with the settings that choose what runs."""

import sys
import types
from pathlib import Path

import pytest

from distgan import train
from distgan.recipes import _catalog
from distgan.recipes._own_code import unload
from distgan.self_check.first_start import _imported_from_elsewhere, is_due, remember

TEXT = (Path(_catalog.__file__).parent / "templates" / "image.py").read_text()
OWN = "    norm: str = 'group'\n    penalty: float = 0.0\n    watch:"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTGAN_CACHE", str(tmp_path / "cache"))
    assert TEXT.count("    watch:") == 1
    other = "\n\nclass Other(Recipe):\n    pass\n"
    Path("mine.py").write_text(TEXT.replace("    watch:", OWN) + other)
    yield tmp_path
    unload()


def due(*words, file="mine.py"):
    module, run, _ = train.plan([file, "data=d", *words])
    return is_due(run, module.code, "inspected")


def test_a_setting_that_may_choose_what_runs_is_checked_again(here):
    assert due() and due("norm=batch")
    module, run, _ = train.plan(["mine.py", "data=d"])
    remember(run, module.code, "inspected")
    alike = ("g_lr=1e-3", "width=8", "seed=3", "batch=4", "evaluate.samples=9", "watch.window=9")
    assert not any(due(word) for word in alike)
    assert due("norm=batch") and due("penalty=1") and due(file="mine.py:Other")
    assert due("machine.self_check=true") and not due("norm=batch", "machine.self_check=false")


def test_a_cache_that_cannot_be_used_means_a_check_in_each_start(here):
    (here / "cache").write_text("a file")
    module, run, _ = train.plan(["mine.py", "data=d"])
    remember(run, module.code, "inspected")
    assert due()


def test_modules_that_are_not_part_of_the_code_are_told(here, monkeypatch):
    monkeypatch.setattr("sys.path", [str(here / "lib"), *sys.path])
    for name in ("beside.py", "lib/elsewhere_of_mine.py"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("")
    Path("mine.py").write_text(f"import beside, elsewhere_of_mine\n{TEXT}")
    before = {str(getattr(module, "__file__", "")) for module in sys.modules.values()}
    # As multiprocessing names the file that Python was started with, `python -m distgan` here.
    started = types.ModuleType("__mp_main__")
    started.__file__ = str(here / "target/distgan/__main__.py")
    monkeypatch.setitem(sys.modules, "__mp_main__", started)
    module, _, _ = train.plan(["mine.py", "data=d"])
    found = {*_imported_from_elsewhere(module.code)} - before
    sys.modules.pop("elsewhere_of_mine")
    assert found == {str(here / "lib/elsewhere_of_mine.py")}
