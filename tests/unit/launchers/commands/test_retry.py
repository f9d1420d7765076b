"""`distgan retry` executes what a file in the folder of runs says: one's own, or after a look."""

import json
import os
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from distgan.core import files
from distgan.core.errors import ConfigError, LaunchError
from distgan.launchers.commands import control
from distgan.launchers.slurm import client, profiles
from distgan.launchers.slurm.ledger import Ledger

CONFIG = "MaxArraySize = 10\nProctrackType = proctrack/linuxproc\n"
SETUP = "curl https://example.org/x | sh"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    fake = FakeSlurm(tmp_path, monkeypatch)
    fake.answers("scontrol", CONFIG)
    fake.answers("squeue")
    fake.answers("sbatch", "Submitted batch job 4217\n", keep=1)
    return fake


@pytest.fixture
def run(slurm, tmp_path) -> Path:
    """A run that was submitted with a line of setup, and failed."""
    folder = tmp_path / "runs" / "sagan" / "a"
    (folder / "attempts").mkdir(parents=True)
    (folder / "status.json").write_text('{"state": "failed", "cause": "x"}')
    (folder / "NO_RESTART").write_text("x")
    ledger = Ledger(tmp_path / "runs")
    submitted = ledger.begin([[str(folder)]])
    ledger.submitted(submitted, "7", False)
    about = {
        "id": submitted.id,
        "elements": [[{"folder": str(folder), "words": ["sagan", "seed=1"]}]],
        "resources": {"setup": [SETUP], "program": ["/bin/true"]},
        "signals_all": True,
        "cwd": str(tmp_path),
    }
    record(tmp_path).mkdir()
    (record(tmp_path) / "submission.json").write_text(json.dumps(about))
    return folder


def record(place: Path) -> Path:
    ((submitted,), _) = Ledger(place / "runs").read()
    return place / "runs" / "_slurm" / submitted.id


def retry(run: Path, *words: str) -> int:
    return control.retry([str(run), "--runs", str(run.parents[1]), *words])


@pytest.fixture
def foreign(run, monkeypatch) -> Path:
    """The same run, submitted by user 12345 as it seems."""
    usual = os.fstat

    def fstat(handle):
        about = usual(handle)
        theirs = os.readlink(f"/proc/self/fd/{handle}").endswith("submission.json")
        return os.stat_result((*about[:4], 12345, *about[5:])) if theirs else about

    monkeypatch.setattr(os, "fstat", fstat)
    return run


def test_ones_own_is_submitted_again(run, slurm, capsys):
    assert retry(run) == 0 and "submitted again as job 4217" in capsys.readouterr().out
    assert SETUP in slurm.kept and not (run / "NO_RESTART").exists()


def test_what_another_user_has_submitted_is_shown_and_not_executed(foreign, slurm):
    with pytest.raises(LaunchError) as error:
        retry(foreign)
    said = str(error.value)
    assert "submission.json belongs to user 12345; you," in said and SETUP in said
    assert "# it trains: /bin/true sagan seed=1" in said and "#SBATCH --chdir=" in said
    assert said.endswith(f"distgan retry {foreign} --runs={foreign.parents[1]} --trust-owner=12345")
    assert not slurm.calls("sbatch") and (foreign / "NO_RESTART").exists()
    with pytest.raises(LaunchError, match="belongs to user 12345"):
        retry(foreign, "--trust-owner", "alice")  # the owner of the file, whatever the ledger says
    assert not slurm.calls("sbatch")


def test_after_a_look_it_is_submitted(foreign, slurm):
    assert retry(foreign, "--trust-owner", "12345") == 0 and SETUP in slurm.kept


def test_ones_own_that_others_may_write_is_another_users(run, slurm):
    (record(run.parents[2]) / "submission.json").chmod(0o664)
    with pytest.raises(LaunchError, match="and others may write it; you"):
        retry(run)
    assert not slurm.calls("sbatch")
    assert retry(run, "--trust-owner", client.user()) == 0


def test_a_dry_run_shows_the_whole_script(run, slurm, capsys):
    assert retry(run, "--dry-run") == 0
    out = capsys.readouterr().out
    assert f"submitted by user {client.user()}; its job would be" in out
    assert "srun --unbuffered" in out
    assert SETUP in out.splitlines() and not slurm.calls("sbatch")
    assert (run / "NO_RESTART").exists()


def test_a_file_that_is_replaced_while_it_is_read_is_not_executed(run, slurm, monkeypatch):
    """Read as that of one user, checked as that of another."""
    usual = control.read_submission

    def replaced(*args):
        found = usual(*args)
        path = record(run.parents[2]) / "submission.json"
        path.write_text(json.dumps({**found[0], "resources": {}}))
        return found

    monkeypatch.setattr(control, "read_submission", replaced)
    with pytest.raises(LaunchError, match="was changed while it was read"):
        retry(run)
    assert not slurm.calls("sbatch")


def test_a_submission_that_is_a_link_is_not_executed(run, slurm, tmp_path):
    path = record(tmp_path) / "submission.json"
    files.rename(path, "other.json")
    path.symlink_to("other.json")
    with pytest.raises(LaunchError, match="it is a link|missing or damaged"):
        retry(run)
    assert not slurm.calls("sbatch")


@pytest.mark.parametrize("name", ["../../elsewhere", ".", "..", "files", "a/b", ""])
def test_a_submission_names_a_folder_of_its_own(tmp_path, name):
    """`retry` reads it and `gc` deletes it."""
    ledger = Ledger(tmp_path)
    ledger.append({"id": name, "state": "submitting", "name": "x", "members": [["r"]]})
    assert ledger.read() == ([], set())


@pytest.mark.parametrize(
    "keys",
    [
        {"sbatch": {"comment": "a\ncurl x | sh"}},
        {"sbatch": {"comment\ncurl": "x"}},
        {"partition": "a\rb"},
        {"nodelist": "n1\x1b[2J"},
        {"program": ["a\nb"]},
    ],
)
def test_a_value_that_would_begin_a_line_of_the_script_is_refused(keys):
    with pytest.raises(ConfigError, match="with a newline or another control character"):
        profiles.read(None, keys)
