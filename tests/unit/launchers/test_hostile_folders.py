"""A folder of runs in which one was damaged, or made by somebody who means harm: that run is one
line, its neighbours are what they were, and no verb hangs, dies or fills the memory.
"""

import json
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from bounds import bounded
from reports import invent

from distgan import cli
from distgan.commands import report
from distgan.core.errors import RunError
from distgan.launchers.commands import control, cost, gc, status, why
from distgan.launchers.slurm import client
from distgan.launchers.slurm.ledger import Ledger

BAD, GOOD = "bad-00000001", ("good-00000000", "good-00000002")
FILES = (
    *("status.json", "identity.json", "config.yaml", "overrides.yaml", "events.jsonl"),
    *("journal.jsonl", "DONE", "NO_RESTART", "attempts/000/attempt.json", "attempts/000/job.json"),
    *("eval/00010800.json", "eval/asked/1.json", "../../_sweeps/study/members.json"),
)
EVIL = "\x1b]0;x\x07\x9b2J\u202e\u2066"
WRONG = {
    "state": 3, "cause": [], "step": "x", "samples": {}, "epoch": [1], "best": 3,
    "heartbeat": 1e999, "runs": [1], "values": 7, "job": None, "started": "x", "ended": [],
    "seconds": "s", "early": "?", "attempt": {}, "data": "x", "event": {}, "time": 1e400,
    "watch": [1], "epochs": {}, "settings": 3, "metric": [], "score": 10**400,
}  # fmt: skip
FOREIGN = {
    "state": EVIL, "cause": EVIL, "job": EVIL, "started": 1.0, "ended": 2.0, "nodes": EVIL,
    "epoch": 1.0, "step": 1, "best": {"metric": EVIL, "score": 1.0, "epoch": 1.0, "step": 1},
    f"eval/{EVIL}": 1.0, "event": "warning", "rule": EVIL, "runs": [], "recipe": EVIL,
}  # fmt: skip


def deep(path):
    path.write_text("[" * 200_000)


def aliases(path):
    path.write_text(
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 30))
    )


def endless(path):
    path.symlink_to("/dev/zero")


def sparse(path):
    with open(path, "wb") as file:
        file.truncate(1 << 40)


def a_list(path):
    path.write_text("[1]")


def wrong(path):
    path.write_text(json.dumps(WRONG) + "\n")


def foreign(path):
    path.write_text(json.dumps(FOREIGN) + "\n")


def somebody_elses(path):
    path.write_text("{}")
    path.chmod(0)


HARMS = (deep, aliases, os.mkfifo, endless, sparse, a_list, wrong, foreign)


def make(home: Path) -> Path:
    """A home with three finished runs that were submitted, of which one is in a sweep."""
    members = []
    for name in (GOOD[0], BAD, GOOD[1]):
        run = invent(home / "sagan" / name, lines=20, grids=0)
        job = {"job": f"{len(members) + 1}", "submission": "x", "started": 1e9, "ended": 1e9 + 3600}
        job |= {"cpus": 2, "nodes": "node1", "trained_s": 3000.0, "kept_s": 3000.0, "step": 0}
        (run / "attempts/000/job.json").write_text(json.dumps(job))
        (run / "DONE").write_text('{"step": 10800, "epoch": 600.0, "early": false}')
        (run / "eval/asked").mkdir()
        members.append([str(run)])
    (home / "_sweeps/study").mkdir(parents=True)
    sweep = {"runs": members[1], "values": [{}]}
    (home / "_sweeps/study/members.json").write_text(json.dumps(sweep))
    ledger = Ledger(home)
    ledger.submitted(ledger.begin(members), "77", True)
    return home


def say(capsys, home: Path) -> dict[str, list[str]]:
    """What each verb prints of these runs, by verb."""
    said = {}
    good = [str(home / "sagan" / name) for name in (*GOOD, BAD)]
    for name, main, words in (
        ("report", report.main, [str(home), "--no-page"]),
        ("status", status.main, ["--runs", str(home)]),
        ("status --json", status.main, ["--runs", str(home), "--json"]),
        ("why", why.main, ["--runs", str(home), *good]),
        ("cost", cost.main, ["--runs", str(home)]),
        ("gc", gc.main, ["--runs", str(home), "--older", "0", "--checkpoints"]),
    ):
        with bounded():
            code = cli.guarded(main, words)
        out, err = capsys.readouterr()
        assert code in (0, 2, 3) and "error: " not in err, (name, err)
        assert all(char.isprintable() or char in "\n\t" for char in out + err), name
        said[name] = out.splitlines()
    return said


def lines_of(said: dict[str, list[str]], run: str) -> dict[str, Counter]:
    """The lines that name a run, without widths of columns and columns without values."""
    return {
        verb: Counter(
            tuple(word for word in line.split() if word != "–") for line in lines if run in line
        )
        for verb, lines in said.items()
    }


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "is_available", lambda: False)
    return make(tmp_path / "runs")


@pytest.fixture
def healthy(home, capsys):
    return say(capsys, home)


def replaced(home: Path, name: str, harm) -> None:
    path = home / "sagan" / BAD / name
    path.unlink(missing_ok=True)
    harm(path)


def told_once(said: dict[str, list[str]], verb: str) -> bool:
    """The bad run has one line of its own in a table (of a report, and one in its verdicts), or one
    warning.
    """
    lines = [line for line in said[verb] if BAD in line or line.startswith("study:0 ")]
    rows = [line for line in lines if not line.startswith(("next", "warning"))]
    unread = [line for line in lines if "cannot be read" in line]
    return len(rows) == (2 if verb == "report" else 1) or verb == "report" and len(unread) == 1


@pytest.mark.parametrize("name", FILES)
def test_one_bad_folder_is_one_line(name, home, healthy, capsys):
    before = {run: lines_of(healthy, run) for run in GOOD}
    for harm in HARMS:
        replaced(home, name, harm)
        said = say(capsys, home)
        for run in GOOD:
            assert lines_of(said, run) == before[run], (harm.__name__, run)
        for verb in ("report", "status", "cost", "status --json"):
            assert told_once(said, verb), (harm.__name__, verb, said[verb])


def test_what_cannot_be_read_is_named(home, capsys):
    replaced(home, "status.json", endless)
    said = say(capsys, home)
    for verb in ("status", "why", "cost", "report"):
        text = "\n".join(said[verb])
        assert "status.json cannot be read: it is a link" in text, verb
    assert BAD not in "\n".join(said["gc"])  # whose best checkpoint is unknown loses none


@pytest.mark.parametrize("name", ["config.yaml", "overrides.yaml"])
def test_an_alias_is_refused_before_it_unfolds(name, home, capsys):
    """Drawn on a page, thirty lines would be a billion words."""
    replaced(home, name, aliases)
    with bounded():
        assert cli.guarded(report.main, [str(home / "sagan" / BAD)]) == 2
    assert "aliases (*name) are not read" in capsys.readouterr().err


def test_a_page_shows_what_is_invisible(home, capsys):
    replaced(home, "events.jsonl", foreign)
    assert report.main([str(home / "sagan" / BAD)]) == 0
    page = (home / "sagan" / BAD / "report.html").read_text()
    assert all(char.isprintable() or char in "\n\t\u00a0" for char in page)
    assert r"\x1b]0;x" in page and r"\u202e" in page


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user for a moment")
@pytest.mark.parametrize("name", ["status.json", "journal.jsonl", "attempts/000/job.json"])
def test_a_file_of_somebody_else(name, capsys, monkeypatch):
    monkeypatch.setattr(client, "is_available", lambda: False)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        home = make(Path(folder) / "runs")
        os.seteuid(65534)
        try:
            before = say(capsys, home)
            os.seteuid(0)
            replaced(home, name, somebody_elses)
            os.seteuid(65534)
            said = say(capsys, home)
        finally:
            os.seteuid(0)
        for run in GOOD:
            assert lines_of(said, run) == lines_of(before, run)
        assert all(told_once(said, verb) for verb in ("report", "status", "cost"))


def test_a_damaged_ledger_is_one_error(home, capsys):
    """It decides what is submitted again: a ledger that cannot be read is not an empty one."""
    (home / "_slurm/ledger.jsonl").unlink()
    (home / "_slurm/ledger.jsonl").symlink_to("/dev/zero")
    with bounded():
        assert cli.guarded(status.main, ["--runs", str(home)]) == 2
    assert capsys.readouterr().err.count("error: cannot read ") == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a link away")
@pytest.mark.parametrize("verb", [control.stop, control.save])
def test_a_name_that_is_another_users_link_stops_no_run(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "attempts").mkdir(parents=True)
    (tmp_path / "theirs").symlink_to("mine")
    os.lchown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(RunError, match="theirs is a link of user 12345 to mine, and is not"):
        verb(["theirs"])
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["attempts"]
