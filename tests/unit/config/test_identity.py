"""Runs keep their identity when settings are added and defaults, draws or orders change."""

import json
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
import yaml
from pydantic import Field

from distgan.config import identity
from distgan.config.loading import validate
from distgan.config.sections import Section
from distgan.config.settings import Run
from distgan.monitor.settings import Watch
from distgan.recipes._catalog import resolve_recipe
from distgan.runs import resolve
from distgan.runs.folder import RunFolder
from distgan.runs.history import read_history

DATA = "fingerprint"
EARLIER = Path(__file__).parents[2] / "fixtures" / "earlier" / "runs"


class Released(Run):
    """A recipe's settings as they were released."""

    recipe: str = "toy"
    batch: int = 16
    epochs: float = 4
    rate: float = 1e-3
    watch: Watch = Watch(window=7)


class Noise(Section):
    scale: float = 1.0


class Later(Released):
    """The same after three changes: a setting and a section added, a default and a draw changed."""

    changed_defaults: ClassVar = {12: {"rate": 1e-3}, 13: {"order": 1, "watch.window": 7}}
    rate: float = 2e-3
    watch: Watch = Watch()
    order: Annotated[Literal[1, 2], identity.Neutral(1)] = 2
    labels: Annotated[bool, identity.Neutral(False)] = False
    noise: Annotated[Noise, identity.Neutral(Noise())] = Noise()
    ratio: Annotated[float | None, identity.Neutral(None)] = Field(None)


@pytest.fixture
def line(tmp_path):
    def settings(model, *words):
        return validate(model, {}, [f"data={tmp_path}", f"machine.runs={tmp_path}/runs", *words])

    return settings


def begin(run, start=None):
    """Begin a run, and return its folder."""
    folder = RunFolder(run, DATA, {}, start)
    folder.begin({})
    folder.close()
    return folder.path


def chosen(run):
    """Return the version of `run` that its line means, with the folder it has."""
    version = resolve.versions(run)[resolve.resolve(run, DATA).version]
    return version, resolve.folder_of(version, version.identity(DATA))


def test_a_new_setting_at_its_neutral_value_changes_no_identity(line):
    released, later = (
        line(Released, "rate=0.1"),
        line(Later, "rate=0.1", "order=1", "watch.window=7"),
    )
    assert later.identity(DATA) == released.identity(DATA)
    assert later.delta() == released.delta()
    for word in ("order=2", "labels=true", "noise.scale=2.0", "ratio=0.5"):
        other = line(
            Later, "rate=0.1", "watch.window=7", *(["order=1"] if "order" not in word else []), word
        )
        assert other.identity(DATA)["id"] != released.identity(DATA)["id"]


class Longer(Released):
    """The same, which trains for longer, and nothing else."""

    changed_defaults: ClassVar = {12: {"epochs": 4}}
    epochs: float = 20


def test_a_run_of_the_earlier_length_ends_there_unless_epochs_is_given(line):
    begin(line(Released))
    run, folder = chosen(line(Longer))
    assert run.epochs == 4 and resolve.resolve(line(Longer), DATA).note.endswith("them: epochs=4.0")
    assert chosen(line(Longer, "epochs=20")) == (line(Longer, "epochs=20"), folder)
    begin(line(Longer, "epochs=20"))  # continued: the folder is of the later length now
    assert chosen(line(Longer))[0].epochs == 20
    (folder / "config.yaml").write_text("[")
    assert chosen(line(Longer))[0].epochs == 20


def test_a_longer_run_that_is_begun_now_is_not_of_the_earlier_length(line):
    begin(line(Longer))
    run, _ = chosen(line(Longer))
    assert run.epochs == 20 and resolve.resolve(line(Longer), DATA).note is None


def test_the_same_line_continues_a_run_of_earlier_defaults(line):
    before = begin(line(Released))
    run, folder = chosen(line(Later))
    assert folder == before and (run.rate, run.order, run.watch.window) == (1e-3, 1, 7)
    again = begin(run)
    assert again == before and len(list(before.parent.iterdir())) == 1
    assert yaml.safe_load((before / "config.yaml").read_text())["rate"] == 1e-3


def test_each_version_between_is_looked_for(line):
    """A run begun after the default of `rate` changed and before that of `order` did."""
    between = line(Later, "order=1", "watch.window=7")
    before = begin(between)
    run, folder = chosen(line(Later))
    assert folder == before and (run.rate, run.order) == (2e-3, 1)
    oldest = begin(line(Released))
    assert chosen(line(Later))[1] == oldest


def test_without_an_earlier_run_the_line_means_todays_defaults(line):
    run, folder = chosen(line(Later))
    assert (run.rate, run.order) == (2e-3, 2) and not folder.exists()
    assert resolve.earlier_values(resolve.versions(run)[-2], run).startswith("watch.window=7")


def test_what_a_line_gives_is_never_taken_for_a_default(line):
    begin(line(Released))
    run, _ = chosen(line(Later, "rate=2e-3"))
    assert run.rate == 2e-3 and run.order == 2


def test_a_folder_of_ones_own_choice_is_continued_too(line, tmp_path):
    begin(line(Released, f"machine.folder={tmp_path}/mine"))
    run, folder = chosen(line(Later, f"machine.folder={tmp_path}/mine"))
    assert run.rate == 1e-3 and folder == tmp_path / "mine"


def test_a_folder_that_was_named_for_a_version_keeps_it(line, tmp_path):
    """Of a job that was queued before a default changed, and has not begun."""
    digits = line(Released).identity(DATA)["id"]
    run, folder = chosen(line(Later, f"machine.folder={tmp_path}/x-{digits}"))
    assert (run.rate, run.order) == (1e-3, 1) and not folder.exists()


@pytest.mark.parametrize("folder", sorted(EARLIER.glob("*/*")), ids=lambda path: path.parent.name)
def test_the_lines_of_version_0_1_find_their_runs(folder):
    """Its monitor had fewer rules and other moves."""
    recorded = json.loads((folder / "identity.json").read_text())
    module, tree = resolve_recipe(folder.parent.name)
    given = yaml.safe_load((folder / "overrides.yaml").read_text())
    first, *_, present = resolve.versions(validate(module.Settings, {**tree, **given}))
    assert first.identity(recorded["data"]) == recorded
    assert present.watch.grad_growth and present.identity(recorded["data"]) != recorded
    assert first.watch.grad_growth is None and "copies" not in first.watch.moves
    assert read_history(folder).settings == first.watch


def test_a_run_that_grows_keeps_its_recorded_start(line):
    before = begin(line(Released, "grow=runs/x@best"), start="digest")
    run = line(Later, "grow=runs/x@best")
    index, start, note = resolve.resolve(run, DATA)
    version = resolve.versions(run)[index]
    assert start == "digest" and version.rate == 1e-3 and "rate=0.001" in note
    assert resolve.folder_of(version, version.identity(DATA, start)) == before


def test_a_changed_value_of_a_preset_is_looked_for(tmp_path):
    """capacity had batch-norm groups of 16, with its batch of 32."""

    def study(*words):
        module, tree = resolve_recipe("capacity")
        where = [f"data={tmp_path}", f"machine.runs={tmp_path}/runs"]
        return validate(module.Settings, tree, [*where, *words])

    assert chosen(study())[0].group == 32 and chosen(study("batch=24"))[0].group == 24
    *_, released = study("ngf=96").earlier_versions()
    before = begin(released)
    run, folder = chosen(study("ngf=96"))
    assert folder == before and (run.group, run.bn_group_max, run.batch) == (16, 16, 32)
    assert chosen(study("ngf=96", "bn_group_max=32"))[0].group == 32
    assert chosen(study("ngf=64"))[0].group == 32
    first, *_ = study().earlier_versions()
    assert (first.group, first.watch.floored, first.epochs) == (16, False, 3000)


def test_settings_recorded_without_a_later_setting_have_its_neutral_value(line):
    recorded = line(Released).model_dump(mode="json")
    run = validate(Later, identity.with_neutral(Later, recorded))
    assert (run.order, run.labels, run.noise, run.rate) == (1, False, Noise(), 1e-3)
    assert run.identity(DATA) == line(Released).identity(DATA)
