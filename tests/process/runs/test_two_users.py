"""Two users in one folder of runs, which both may write: what one plants harms no file of the other
beyond the runs in it, and nothing of it is executed.

Alice trains a run and then uses every verb; before each, Bob plants. Needs root, to be both.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from processes import ROOT, TINY

pytestmark = pytest.mark.gate

ALICE, BOB, GROUP = 12345, 23456, 34567
PACKAGES = Path(torch.__file__).parents[1]
SYSTEM = f"/usr/bin/python3.{sys.version_info[1]}"
LINE = ["train", "sagan", "data=data", "machine.device=cpu", "machine.workers=0", *TINY]
SETUP = "touch PWNED"


def as_user(uid: int, *words: str, cwd: Path, path: str = "") -> subprocess.CompletedProcess:
    """Run a program as a user who is in the group, with the umask of a shared folder."""
    environment = {
        "PATH": f"{path}:/usr/bin:/bin",
        "USER": str(uid),  # torch asks for a name
        "HOME": str(cwd / f"home{uid}"),
        "PYTHONPATH": f"{ROOT}:{PACKAGES}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        words,
        user=uid,
        group=GROUP,
        extra_groups=[],
        umask=0o002,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def python() -> str:
    """An interpreter that another user can start."""
    if os.getuid():
        pytest.skip("only root can be two users")
    for one in (sys.executable, SYSTEM):
        try:
            done = as_user(ALICE, one, "-c", "import torch, distgan.cli", cwd=Path("/"))
        except OSError:
            continue
        if done.returncode == 0:
            return one
    pytest.skip(f"another user can read neither {sys.executable} nor {SYSTEM}, or not {ROOT}")


class Shared:
    """A folder with `runs`, which the group may write, and what each of the two has alone."""

    def __init__(self, place: Path, python: str):
        self.place, self.python = place, python
        self.runs, self.precious = place / "runs", place / f"home{ALICE}" / "precious"

    @property
    def run(self) -> Path:
        (found,) = self.runs.glob("sagan/*")
        return found

    def alice(self, *words: str, path: str = "") -> tuple[int, str]:
        line = [self.python, "-P", "-m", "distgan", *words]
        done = as_user(ALICE, *line, cwd=self.place, path=path)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    def bob(self, program: str) -> None:
        """Run a program of Python with `run` and `runs`, `precious` and `plant` as Bob."""
        head = (
            f"import json, os; from pathlib import Path; run = Path({str(self.run)!r});"
            f" runs = Path({str(self.runs)!r}); precious = Path({str(self.precious)!r})\n"
            "def plant(link, target):\n"
            "    link.parent.mkdir(parents=True, exist_ok=True)\n"
            "    if os.path.lexists(link): link.rename(f'{link}.away')\n"
            "    link.symlink_to(target)\n"
        )
        done = as_user(BOB, self.python, "-c", head + program, cwd=self.place)
        assert done.returncode == 0, done.stderr

    def kept(self) -> dict[str, bytes | None]:
        """What Alice has outside of the runs, and whatever a planted line has left."""
        return {
            str(path): path.read_bytes() if path.is_file() else None
            for home in (self.precious, self.place / "data")
            for path in sorted(home.rglob("*"))
        } | {str(path): b"" for path in self.place.rglob("PWNED*")}


@pytest.fixture(scope="module")
def trained(python, particles) -> Iterator[Path]:
    """The folder with a run of one epoch by Alice."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        shutil.copytree(particles, place / "data")
        for folder, owner, mode in (
            ("runs", 0, 0o2775),
            (f"home{ALICE}", ALICE, 0o755),
            (f"home{BOB}", BOB, 0o755),
        ):
            (place / folder).mkdir()
            os.chown(place / folder, owner, GROUP)
            (place / folder).chmod(mode)
        for path in (place / "data", *(place / "data").rglob("*")):
            os.chown(path, ALICE, GROUP)
        precious = place / f"home{ALICE}" / "precious"
        made = "".join(
            f"os.makedirs({str(precious / folder)!r}); "
            f"open({str(precious / folder / 'file')!r}, 'w').write('precious'); "
            for folder in ("checkpoints/00000000", "checkpoints/.tmp-x", "000", "images", "work")
        )
        done = as_user(ALICE, python, "-c", f"import os; {made}", cwd=place)
        assert done.returncode == 0, done.stderr
        code, said = Shared(place, python).alice(*LINE, "epochs=1")
        assert code == 0, said
        yield place


@pytest.fixture
def two(trained, python) -> Iterator[Shared]:
    """A copy of that, at the same place, for one test."""
    kept = trained.with_name(f"{trained.name}.kept")
    subprocess.run(["cp", "-a", trained, kept], check=True)
    yield Shared(trained, python)
    for path in trained.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    subprocess.run(["cp", "-a", f"{kept}/.", trained], check=True)
    shutil.rmtree(kept)


def test_files_of_a_group_may_be_read_and_written_by_it(two):
    for path in two.runs.rglob("*"):
        about = path.stat()
        wanted = 0o2775 if path.is_dir() else 0o664
        assert about.st_gid == GROUP and about.st_mode & 0o7777 == wanted, path


LEAVES = """
for name in ("status.json", "events.jsonl", "journal.jsonl", "config.yaml", "overrides.yaml",
             "DONE", "report.html"):
    plant(run / name, precious / "work" / "file")
for name in ("STOP", "SAVE"):
    plant(run / name, precious / "work" / name)
"""


@pytest.mark.parametrize(
    "planted",
    [
        LEAVES,
        'plant(run / ".lock", precious / "work" / "file")',
        'plant(run / "checkpoints", precious / "checkpoints")',
        'plant(run / "attempts", precious)',
        "plant(run, precious)",
    ],
)
def test_training(two, planted):
    before = two.kept()
    two.bob(planted)
    code, said = two.alice(*LINE, "epochs=2")
    assert two.kept() == before, said
    assert planted == LEAVES or code and "error: " in said


def test_gc(two):
    before = two.kept()
    two.bob(
        """
plant(runs / "_debug", precious)
plant(runs / "_code", precious)
plant(runs / "_slurm" / "abc", precious)
plant(run / "checkpoints", precious / "checkpoints")
plant(run.parent / "x", precious)
(runs / "_sweeps" / "s").mkdir(parents=True)
members = {"runs": [str(precious), str(run.parent / "x"), str(run)]}
(runs / "_sweeps" / "s" / "members.json").write_text(json.dumps(members))
"""
    )
    code, said = two.alice("gc", "--older", "0", "--checkpoints", "--yes")
    assert two.kept() == before and code == 0, said
    assert said.count("left alone: ") >= 3


@pytest.mark.parametrize(
    ("words", "planted"),
    [
        (["report", "RUN"], 'plant(run / "report.html", precious / "work" / "file")'),
        (["status"], LEAVES),
        (["why", "RUN"], LEAVES),
        (["evaluate", "RUN", "n=8"], 'plant(run / "eval" / "asked", precious / "work")'),
        (["generate", "RUN", "n=8"], 'plant(run / f"generated-{step}", precious / "work")'),
        (
            ["generate", "RUN", "n=8"],
            'plant(run / f"generated-{step}" / "images" / "00000.png", precious / "work" / "file")',
        ),
        (["generate", "RUN", "out"], 'plant(run / "checkpoints", precious / "checkpoints")'),
        (
            ["sweep", "s", "--report"],
            """
(runs / "_sweeps" / "s").mkdir(parents=True)
members = {"runs": [str(run)], "values": [{}]}
(runs / "_sweeps" / "s" / "members.json").write_text(json.dumps(members))
for name in ("report.html", "report.md", "report.csv", "report.png"):
    plant(runs / "_sweeps" / "s" / name, precious / "work" / "file")
""",
        ),
        (
            ["sweep", "s", "--report"],
            """
(precious.parent.parent / f"home{os.getuid()}" / "s").mkdir()
theirs = precious.parent.parent / f"home{os.getuid()}" / "s"
(theirs / "members.json").write_text(json.dumps({"runs": [str(run)], "values": [{}]}))
theirs.chmod(0o777)
plant(runs / "_sweeps" / "s", theirs)
""",
        ),
    ],
)
def test_verbs_that_look_at_runs(two, words, planted):
    before = two.kept()
    step = "step = sorted(path.name for path in (run / 'checkpoints').glob('0*'))[-1]\n"
    two.bob(step + planted)
    _, said = two.alice(*(str(two.run) if word == "RUN" else word for word in words))
    assert two.kept() == before, said


SUBMITTED = f"""
record = runs / "_slurm" / "abc"
record.mkdir(parents=True)
begun = {{"id": "abc", "state": "submitting", "name": "distgan-abc", "time": 1.0,
         "members": [[str(run)]], "user": "{ALICE}"}}
lines = [begun, {{"id": "abc", "state": "submitted", "job": "7", "array": False}}]
(record.parent / "ledger.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
resources = {{"setup": ["{SETUP}"], "program": ["touch", "PWNED"]}}
elements = [[{{"folder": str(run), "words": ["sagan"]}}]]
about = {{"id": "abc", "elements": elements, "resources": resources, "signals_all": True}}
(record / "submission.json").write_text(json.dumps(about))
(record / "job.pkl").write_bytes(b"cposix\\nsystem\\n(S'{SETUP}'\\ntR.")
(run / "DONE").unlink()
(run / "status.json").rename(run / "old")
(run / "status.json").write_text(json.dumps({{"state": "failed", "cause": "x"}}))
"""


@pytest.mark.parametrize("words", [["--dry-run"], ["--trust-owner=alice"]])
def test_retry(two, words):
    """The ledger calls it Alice's; the owner of the file is Bob."""
    slurm = two.place / "slurm"
    slurm.mkdir()
    for name, answer in (
        ("squeue", ""),
        ("scontrol", "echo MaxArraySize = 10"),
        ("sbatch", "touch PWNED_sbatch; sh $1; echo Submitted batch job 9"),
        ("sacct", ""),
    ):
        (slurm / name).write_text(f"#!/bin/sh\n{answer}\n")
        (slurm / name).chmod(0o755)
    before = two.kept()
    two.bob(SUBMITTED)
    code, said = two.alice("retry", str(two.run), *words, path=str(slurm))
    assert two.kept() == before, said
    assert SETUP in said and "user 23456" in said and (code == 0) == ("--dry-run" in words)


def test_a_copy_of_the_code(two):
    """Bob's is not run, whatever its name; nor is Alice's under another one's name."""
    take = (
        "from pathlib import Path; from distgan.launchers.slurm import snapshot;"
        f" print(snapshot.take(Path({str(two.runs / '_code')!r})))"
    )
    first = as_user(ALICE, two.python, "-c", take, cwd=two.place)
    assert first.returncode == 0, first.stderr
    name = Path(first.stdout.strip())
    two.bob(
        f"copy = Path({str(name)!r}); copy.rename(copy.with_name('away'));"
        " import shutil; shutil.copytree(copy.with_name('away'), copy);"
        " (copy / 'distgan' / 'cli.py').write_text('evil')"
    )
    second = as_user(ALICE, two.python, "-c", take, cwd=two.place)
    assert "belongs to another user. Another one is made" in second.stdout, second.stderr
    made = Path(second.stdout.splitlines()[-1])
    assert made != name and {path.stat().st_uid for path in made.rglob("*")} == {ALICE}
