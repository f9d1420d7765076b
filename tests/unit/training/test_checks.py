"""What is due between two steps, with a recipe of three lines."""

import json
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distgan.config.judge import Judge
from distgan.config.sections import Machine
from distgan.core.clock import Clock
from distgan.core.errors import RunError
from distgan.distributed.ranks import Ranks
from distgan.monitor.decisions import Decision
from distgan.monitor.settings import Watch
from distgan.recipes.sagan import Settings
from distgan.runs.training_state import TrainingState
from distgan.training.checks import Checks
from distgan.training.journal_writer import UNSHOWN, JournalWriter

CLOCK = Clock(per_step=4, train=8)
RUN = types.SimpleNamespace(
    sample_every=100,
    validate_every=1,
    scored=None,
    judge=Judge.of_key("valid/l1"),
    validated=(),
    patience=2,
    watch=Watch(),
    model_dump=lambda mode: {},
)


class Folder:
    def __init__(self, path):
        self.path, self.rows, self.events = path, [], []
        (path / "eval").mkdir()

    def journal(self, rows):
        self.rows += rows

    def event(self, name, **details):
        self.events.append((name, details))

    def write_optional(self, what, write):
        write()


@pytest.fixture
def made(tmp_path):
    folder, ranks, losses = Folder(tmp_path), Ranks(Machine(device="cpu")), iter((0.5, 0.3, 0.4))
    recipe = types.SimpleNamespace(
        validate=lambda data: {"valid/l1": next(losses)}, show=lambda data, path: None
    )
    data = types.SimpleNamespace(validation=range(3))
    writer = JournalWriter(ranks, folder)
    checks = Checks(recipe, data, ranks, folder, writer, None, last=100)
    return folder, checks, TrainingState.from_dict({}, RUN, ("G", "D"))


def test_a_number_of_the_validation_is_the_score(made):
    folder, checks, state = made
    improved = [checks.check(CLOCK.at(step), state)[0] for step in (2, 4, 6)]
    assert improved == [True, True, False]
    assert state.best == {"step": 4, "samples": 16, "epoch": 2.0, "score": 0.3, "metric": "l1"}
    assert [row["eval/l1"] for row in folder.rows if "eval/l1" in row] == [0.5, 0.3, 0.4]
    assert [name for name, _ in folder.events] == ["validation", "best"] * 2 + [
        "validation",
        "evaluation",
    ]
    record = json.loads((folder.path / "eval" / "00000006.json").read_text())
    assert (record["metric"], record["score"], record["samples"]) == ("l1", 0.4, 3)


def test_a_number_that_is_better_the_higher_judges(made):
    folder, checks, state = made
    run = types.SimpleNamespace(**{**vars(RUN), "judge": Judge.parse("si_sdr")})
    state.run, numbers = run, iter({"valid/si_sdr": n} for n in (3.0, 8.0, 5.0))
    checks._recipe.validate = lambda data: next(numbers)
    improved = [checks.check(CLOCK.at(step), state)[0] for step in (2, 4, 6)]
    assert improved == [True, True, False]
    assert (state.best["metric"], state.best["score"], state.best["step"]) == ("-si_sdr", -8.0, 4)


def test_a_judge_that_comes_with_the_gan_loss_is_waited_for_and_an_unknown_one_refused(made):
    folder, checks, state = made
    later = {"judge": Judge.parse("l1+g_loss"), "best_by": "l1+g_loss", "recipe": "mine"}
    state.run = types.SimpleNamespace(**{**vars(RUN), **later, "validated": ("l1", "g_loss")})
    assert checks.check(CLOCK.at(2), state)[0] is False and state.best is None
    state.run = types.SimpleNamespace(**{**vars(RUN), **later})
    with pytest.raises(RunError, match="best_by: valid/g_loss finds .* returned valid/l1"):
        checks.check(CLOCK.at(4), state)


def test_what_was_decided_is_applied_recorded_and_told(made, monkeypatch, capsys):
    folder, checks, state = made
    monkeypatch.setattr("distgan.training.checks.apply_settings", lambda recipe, run: None)
    state.run = Settings(data="d", g_lr=2e-4)
    checks.apply(CLOCK.at(4), state, Decision("adapt", "d_too_strong", {"g_lr": 1e-4}), by="test")
    assert state.run.g_lr == 1e-4 and state.changed == {"g_lr": 1e-4}
    assert [row["adapt/g_lr"] for row in folder.rows] == [1e-4]
    ((name, event),) = folder.events
    assert (name, event["rule"], event["by"]) == ("adapt", "d_too_strong", "test")
    assert event["moves"] == "g_lr 2e-4→1e-4" and event["changes"] == {"g_lr": 1e-4}
    checks.apply(CLOCK.at(4), state, Decision("rollback", "bad_numbers", {}))
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "adapt because of d_too_strong: g_lr 2e-4→1e-4",
        "rollback because of bad_numbers: nothing left to change",
    ]


def test_patience_counts_epochs_from_the_best(made):
    _, checks, state = made
    for step in (2, 4):
        checks.check(CLOCK.at(step), state)
    ends = [checks.end_reason(CLOCK.at(step), state, Decision()) for step in (6, 7, 8)]
    assert ends == [None, None, "no better l1 for 2 epochs"]
    stop = checks.end_reason(CLOCK.at(6), state, Decision("stop", "nonfinite"))
    assert stop == "watch.on_trouble=stop, because of nonfinite"


# ---- decisions over a whole journal
STEPS = 48


class Memory(Folder):
    def __init__(self):
        self.path, self.rows, self.events = Path(), [], []


def invented(draws):
    """Return {step: its training row}: three stretches, each with losses of its own."""
    rows = {}
    for step in range(1, STEPS + 1):
        loss, real, fake = draws[(step - 1) * len(draws) // STEPS]
        row = {"step": step, "samples": 4 * step, "epoch": step / 2, "seconds": 1.0}
        rows[step] = row | {
            "d/loss": loss * (1 + step % 3 / 50),
            "g/loss": 1 / (0.1 + loss),
            "d/real_prob": real,
            "d/fake_prob": fake,
        }
    return rows


def decisions(rows, diversity, on_trouble, ends, every):
    """Return (step, action, changes) of a run's decisions.

    Ends: steps at which an attempt is killed after its checkpoint, or a leg ends; every: of the
    steps, those that are rows of the journal.
    """
    watch = Watch(on_trouble=on_trouble, window=3, valid_window=1, settle_epochs=2)
    values = {"g_lr": 1e-3, "d_lr": 1e-3, "g_steps": 1}
    run = types.SimpleNamespace(
        **vars(RUN) | {"watch": watch, "validate_every": 4, "model_dump": lambda mode: values}
    )
    recipe = types.SimpleNamespace(show=lambda data, path: None)
    recipe.validate = lambda data: {"valid/l1": 1.0, "valid/diversity": diversity[now.step // 8]}
    data, ranks = types.SimpleNamespace(validation=range(3)), Ranks(Machine(device="cpu"))
    made, state, saved, at = [], None, {}, 0
    journal, unshown = [], []
    for end in (*ends, STEPS):
        folder = Memory()
        writer = JournalWriter(ranks, folder)
        writer.set_history(sorted(unshown + journal, key=lambda row: row["step"]))
        state = TrainingState.from_dict(saved, run, ("G", "D"))
        checks = Checks(recipe, data, ranks, folder, writer, None, last=end)
        checks.apply = lambda *args, **facts: None
        checks._is_allowed = lambda state, decision: True
        folder.write_optional = lambda what, write: None
        for step in range(at + 1, end + 1):
            now = CLOCK.at(step)
            writer.write([rows[step] | ({} if step % every == 0 else UNSHOWN)])
            if any(checks.due(now, state)):
                _, decision = checks.check(now, state)
                if decision.action != "nothing":
                    made.append((step, decision.action, decision.rule, decision.changes))
        at, saved = end, json.loads(json.dumps(state.to_dict()))
        journal, unshown = journal + folder.rows, writer.unshown
    return made


LEVELS = st.tuples(
    st.sampled_from([0.01, 0.3, 0.7, 2.0]),
    st.sampled_from([0.2, 0.6, 0.95]),
    st.sampled_from([0.01, 0.4, 0.9]),
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(LEVELS, min_size=3, max_size=3),
    st.lists(st.sampled_from([0.05, 0.5, 1.0]), min_size=7, max_size=7),
    st.sampled_from(["adapt", "stop", "warn"]),
    st.sets(st.integers(1, STEPS - 1), max_size=4),
    st.integers(1, 4),
)
def test_decisions_do_not_depend_on_ends_and_restarts(draws, diversity, response, ends, every):
    """Nor on which steps are in the journal; and those of a prefix are a prefix of those of all."""
    rows = invented(draws)
    whole = decisions(rows, diversity, response, (), 1)
    assert decisions(rows, diversity, response, sorted(ends), every) == whole
