"""Slurm's commands as small programs that note how they were called and answer what a test says."""

import json
import shlex
from pathlib import Path

from distgan.launchers.slurm.client import QueueEntry

# The words that each command is called with, as extended regular expressions. Others are refused,
# as Slurm would refuse some of them and take others to mean more than was meant: a bare scancel.
KEY = "[0-9]+(_[0-9]+)?"
WORDS = {
    "sbatch": r"(--test-only )?/[^ ]+\.sh",
    "scontrol": (
        rf"requeue {KEY}|show config|show hostnames [^ ]+|--oneliner show job {KEY}"
        "|--oneliner show (node|partition) [^ ]+"
    ),
    "scancel": f"{KEY}( {KEY})*",
    "squeue": r"--noheader --array --states=all --users=[^ ]+ --format=%i(\|%[A-Za-z])+"
    rf"|--noheader --jobs={KEY} --format=%e",
    "srun": "-.*",
    "sacct": (
        r"--noheader --parsable2 --allocations --duplicates --starttime=now-180days"
        rf" --jobs={KEY}(,{KEY})*"
        " --format=JobID,State,ElapsedRaw,AllocTRES,NNodes,NCPUS,ExitCode,Start"
    ),
    "sacctmgr": (
        "--noheader --parsable2 show (user [^ ]+ format=DefaultAccount"
        "|assoc account=[^ ]+( cluster=[^ ]+)?"
        " format=User,ParentName,MaxSubmit,GrpSubmit,DefaultQOS"
        "|qos [^ ]+ format=MaxSubmitPU,MaxSubmitPA,GrpSubmit)"
    ),
}


class FakeSlurm:
    """Commands in a folder of their own, which is put before the usual path.

    Each call is noted whole, words and all. A command that no test gave an answer fails, and so
    does one that is called with other words than it has.
    """

    def __init__(self, folder: Path, monkeypatch):
        self.folder, self._calls = folder / "slurm", folder / "calls"
        self.folder.mkdir()
        monkeypatch.setenv("PATH", f"{self.folder}:/usr/bin:/bin")
        for name in WORDS:
            self.answers(name, error=f"{name}: no answer in this test", code=97)

    def answers(self, name: str, output: str = "", error: str = "", code: int = 0, keep: int = 0):
        """From now on the command prints this and ends with `code`; `keep`: it first copies the
        file that is its word number `keep`.
        """
        calls, path = shlex.quote(str(self._calls)), self.folder / name
        kept = f'cp "${keep}" {shlex.quote(str(self.folder / "kept"))}\n' if keep else ""
        path.write_text(
            f'#!/bin/sh\n{{ printf "%s\\n" {name} "$@"; echo; }} >> {calls}\n'
            f'echo "$*" | grep -Eqx -e {shlex.quote(WORDS[name])} ||'
            f' {{ echo "{name}: not called so: $*" >&2; exit 98; }}\n{kept}'
            f"printf %s {shlex.quote(output)}\nprintf %s {shlex.quote(error)} >&2\nexit {code}\n"
        )
        path.chmod(0o755)

    def reply(self, name: str, answers: dict[str, str]):
        """From now on the command prints the answer to the first of these words in its own."""
        self.answers(name)
        cases = "".join(
            f"*{shlex.quote(words)}*) printf '%s\\n' {shlex.quote(text)};;\n"
            for words, text in answers.items()
        )
        with open(self.folder / name, "a") as file:
            file.write(f'case "$*" in\n{cases}esac\n')
        text = (self.folder / name).read_text().replace("\nexit 0\n", "\n")
        (self.folder / name).write_text(text + "exit 0\n")

    def calls(self, *names: str) -> list[list[str]]:
        """Words of all calls of these commands, in order."""
        text = self._calls.read_text() if self._calls.exists() else ""
        calls = [block.split("\n") for block in text.split("\n\n") if block]
        return [words for words in calls if words[0] in names]

    @property
    def kept(self) -> str:
        return (self.folder / "kept").read_text()


def submission_folder(home: Path, words: list[str], resources: dict, elements: int = 1, **more):
    """The folder of a submission of runs `home/run0`, … as `submit` leaves it."""
    folder = home / "_slurm" / "abc"
    folder.mkdir(parents=True)
    members = [[{"folder": str(home / f"run{k}"), "words": words}] for k in range(elements)]
    about = {"id": "abc", "elements": members, "resources": resources, "signals_all": True}
    (folder / "submission.json").write_text(json.dumps(about | more))
    for k in range(elements):
        (home / f"run{k}").mkdir()
    return folder


def queue_entry(state: str, key: str = "7_1", reason: str = "None") -> QueueEntry:
    """A line of squeue."""
    return QueueEntry(key, state, reason, "distgan-x", "n1", "1:00", "N/A")
