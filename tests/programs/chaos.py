"""A hundred kills at random moments: `make chaos`, or python tests/programs/chaos.py [--kills 100]
[--processes 1,2,3] [--seed 0] [--folder EMPTY].

A campaign for each number of processes. The same command starts a run again and again, and is
killed each time: at any moment, or in the middle of what the kind of the kill names. A run that
comes to its end is compared, to the bit, with one that nobody disturbed, and the next begins in a
new folder until all kills are spent; the last is left to end. Exit code 1 where anything differs,
hangs, or fails without being killed, or where a checkpoint that a start would load is not what was
saved.

To hit the middle of a save, the trainer is tests/programs/paused.py: at one place, drawn for each
start, it touches a file and waits for two seconds. The kill itself always comes from outside.
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import psutil
import torch
from paused import PLACES
from processes import ROOT, TINY, environment, line, run
from safetensors.torch import load_file

from distgan.core.errors import RunError
from distgan.runs import checkpoints
from distgan.shards.build import command as build_command

ASK = [
    "epochs=30",
    "validate_every=2",
    "sample_every=3",
    "evaluate.schedule=[[null,2]]",
    *TINY[:-1],
    "evaluate.samples=48",
    "machine.checkpoint_every=1",
    "machine.flush_steps=3",
    "machine.resident_mb=0",
    "machine.workers=2",
    "machine.stall_s=40",
    "machine.timeout_s=40",
    # The monitor acts: three rollbacks, each followed by seven epochs, then an early end.
    "d_lr=2e-3",
    "rollback_every=2",
    "watch.on_trouble=rollback",
    "watch.settle_epochs=7",
    "watch.window=3",
    "watch.valid_window=1",
    "watch.d_loss_strong=0.3",
    "watch.diversity_fall=null",
    "watch.diversity_low=null",
    "watch.score_jump=null",
]
# From a start to the moment of its kill, or to its end; longer is a hang. At least three times what
# the undisturbed run took.
MOMENT_S = 150
GONE_S = 60  # from a kill to the end of what it left; machine.stall_s and timeout_s lie below
ORPHAN_S = 30  # decoding processes look every 5 s whether their rank is there
PROGRAM = ROOT / "tests" / "programs" / "paused.py"
KINDS = ("one rank", "all ranks", "the launcher", "SIGTERM", "SIGHUP", *PLACES)
# Also where the tests themselves ignore it, as under nohup.
HEARD = ["env", "--default-signal=HUP"]


class Fault(Exception):
    """What a campaign looks for: (hang, failed, differs or corrupt; what exactly)."""


@dataclasses.dataclass
class Kill:
    kind: str
    processes: int
    moment: str = ""  # where the run was
    target: str = ""  # who was killed
    step: int = 0  # the last one in the journal
    lost: int = 0  # steps from there back to the newest intact checkpoint
    damaged: int = (
        0  # checkpoints under their own name that are not what was written, and are passed over
    )
    again_s: float | None = (
        # from the next start to its first step; None where there was nothing to go on from, or that
        # start was killed before
        None
    )
    fault: str = ""


class Campaign:
    """All kills of one number of processes."""

    def __init__(self, processes: int, kinds: list[str], seed: int, particles: Path, where: Path):
        self.processes, self.particles, self.where = processes, particles, where
        self.rng = random.Random(f"{seed} {processes}")
        self.kinds = self.rng.sample(kinds, len(kinds))
        self.kills: list[Kill] = []
        self.faults: list[str] = []
        self.finished = 0
        self.orphans: list[tuple[float, psutil.Process]] = []
        self.output, self.folder, self.undisturbed = (
            where / "output.txt",
            where / "run-0",
            where / "undisturbed",
        )
        where.mkdir(parents=True)
        self.command = line("torchrun" if processes > 1 else "python", processes, PROGRAM)
        launch = line("accelerate", processes, PROGRAM)  # that of a single process, to be killed
        self.launched = [word for word in launch if processes > 1 or word != "--multi_gpu"]
        began = time.monotonic()
        run(self.command, *self.words(self.undisturbed), "machine.keep=1000", cwd=where)
        took = time.monotonic() - began
        self.moment_s = max(MOMENT_S, 3 * took)
        self.start_s = took - next(
            row["seconds"] for row in reversed(rows_of(self.undisturbed)) if "seconds" in row
        )
        print(
            f"{processes} processes: undisturbed in {took:.0f} s, of which {self.start_s:.0f} s are"
            " not training",
            flush=True,
        )

    def words(self, folder: Path) -> list[str]:
        return ["sagan", f"data={self.particles}", f"machine.folder={folder}", *ASK]

    def fight(self) -> None:
        """Spend all kills, then let the run that is left come to its end."""
        after = None
        while True:
            number = len(self.kills)
            kind = self.kinds[number] if number < len(self.kinds) else None
            kill = Kill(kind or "", self.processes)
            try:
                over = self.attempt(kill, after)
            except Fault as fault:
                kill.fault, text = fault.args
                self.faults.append(
                    f"{self.processes} processes, {kind or 'the last start'}: {kill.fault}: {text}"
                )
                print(f"FAULT: {self.faults[-1]}", flush=True)
                kill.moment, over = kill.moment or "none", True
            if kill.moment and kind:
                self.kills.append(kill)
                print(
                    f"{time.strftime('%H:%M:%S')} {self.processes} processes, kill"
                    f" {number + 1}/{len(self.kinds)}: {kill.kind}: killed {kill.target},"
                    f" {kill.moment}; journal at step {kill.step}, {kill.lost} lost"
                    + (f", {kill.damaged} damaged" if kill.damaged else ""),
                    flush=True,
                )
            after = kill
            if over:
                after = None
                if kill.fault and self.folder.exists():
                    shutil.copy(self.output, self.folder)
                else:
                    shutil.rmtree(self.folder, ignore_errors=True)
                self.folder = self.where / f"run-{number}-{self.finished}"
            if kind is None:
                break
        if left := [one for _, one in self.orphans if not gone(one)]:
            psutil.wait_procs(left, timeout=ORPHAN_S)
        if left := [one for one in left if not gone(one)]:
            signalled(left, signal.SIGKILL)
            self.faults.append(
                f"{self.processes} processes: {len(left)} processes were still there {ORPHAN_S} s"
                " after the last start"
            )

    def attempt(self, kill: Kill, after: Kill | None) -> bool:
        """Start, and kill, unless the run is over before.

        Returns whether it is, and then is what it should be.
        """
        rng, marker, kind = self.rng, self.where / "moment", kill.kind
        marker.unlink(missing_ok=True)
        place, nth, rank, early = (
            "",
            rng.randint(1, 3),
            rng.randrange(self.processes),
            rng.random() < 0.4,
        )
        wait_s = rng.uniform(0.3, 0.8 * self.start_s) if early else rng.uniform(0.0, 3.0)
        if kind in PLACES:
            place, rank = rng.choice(PLACES[kind]), 0 if kind in ("save", "validation") else rank
            nth = rng.randint(1, 12) if kind == "reading" else nth
        known, trains_at = len(events_of(self.folder)), None
        with open(self.output, "w") as output:
            began = time.monotonic()
            command = self.launched if kind == "the launcher" else self.command
            process = psutil.Popen(
                [*HEARD, *command, *self.words(self.folder)],
                cwd=self.where,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment(
                    CHAOS=f"{kind if kind in PLACES else ''}|{place}|{nth}|{rank}|{marker}"
                ),
            )
        while process.poll() is None:
            time.sleep(0.03)
            now = time.monotonic()
            if now - began > self.moment_s:
                end(process)
                raise Fault("hang", f"{self.moment_s:.0f} s after a start; {self.tail()}")
            if trains_at is None and (since := self.trains(known)):
                trains_at = now
                if after and since == "training_again":
                    after.again_s = now - began
            if (
                kind in PLACES
                and marker.exists()
                or kind
                and kind not in PLACES
                and now - (began if early else trains_at or now) > wait_s
            ):
                break
        else:
            self.ended(process.returncode)
            return True
        if kind in PLACES:
            kill.moment = f"{kind}, {place}"
        elif (self.folder / "DONE").exists():
            kill.moment = "after the last step"
        elif self.saving(since_s=now - began):
            kill.moment = "in a save"
        else:
            kill.moment = "in training" if trains_at else "in start-up"
        self.strike(process, kill, marker)
        self.look(kill)
        asked = kind in ("SIGTERM", "SIGHUP", "the launcher")
        stopped = asked and "saved and stopped" in self.output.read_text(errors="replace")
        code = 75 if self.processes == 1 and kind != "the launcher" else process.returncode
        if stopped and (kill.lost or process.returncode != code):
            raise Fault(
                "failed",
                f"asked to stop, it lost {kill.lost} steps and left with {process.returncode}",
            )
        if (self.folder / "DONE").exists():  # between the last look and the kill
            self.compare()
            return True
        return False

    def trains(self, known: int) -> str | None:
        """The event with which this start says that it has taken a step.

        Of a run that begins, its journal says so.
        """
        names = [event["event"] for event in events_of(self.folder)[known:]]
        if "training_again" in names:
            return "training_again"
        return (
            "start"
            if "start" in names and any("d/loss" in row for row in rows_of(self.folder))
            else None
        )

    def saving(self, since_s: float) -> bool:
        """A checkpoint is being written, by this start."""
        with contextlib.suppress(OSError):
            return any(
                time.time() - path.stat().st_mtime < since_s
                for path in (self.folder / "checkpoints").glob(".tmp-*")
            )
        return True

    # ---- the kill
    def strike(self, process: psutil.Popen, kill: Kill, marker: Path) -> None:
        """Kill, and see to it that all ends that the kill has left."""
        below = children(process)
        ranks = [process] if self.processes == 1 else ranks_of(below)
        paused = kill.kind in PLACES
        if kill.kind in ("SIGTERM", "SIGHUP"):
            kill.target = self.rng.choice(
                ["rank 0" if self.processes == 1 else "the launcher", "every process"]
            )
            targets = [process, *(below if kill.target == "every process" else [])]
        elif kill.kind == "the launcher":
            kill.target, targets = "the launcher", [process]
        elif kill.kind == "all ranks" or paused and self.rng.random() < 0.4 or not ranks:
            kill.target = "all ranks"
            signalled(
                [process], signal.SIGSTOP
            )  # or it may start one between the look and the kill
            targets = [process, *children(process)]
        elif kill.kind == "reading" and self.rng.random() < 0.5:
            kill.target = "a decoding process"
            targets = [one for one in below if str(one.pid) == marker.read_text()]
        else:
            number = self.rng.randrange(len(ranks))
            kill.target, targets = f"rank {number}", [ranks[number]]
        signalled(targets, getattr(signal, kill.kind, signal.SIGKILL))
        try:
            process.wait(GONE_S)
            # Nobody else ends them, and the next start needs their lock.
            orphans = below if kill.kind == "the launcher" else []
            if not all(map(gone, psutil.wait_procs(orphans, timeout=GONE_S)[1])):
                raise psutil.TimeoutExpired(GONE_S)
        except psutil.TimeoutExpired:
            end(process)
            signalled(below, signal.SIGKILL)
            raise Fault(
                "hang", f"{GONE_S} s after a kill of {kill.target}, {kill.moment}; {self.tail()}"
            ) from None
        late = [
            one
            for since, one in self.orphans
            if time.monotonic() - since > ORPHAN_S and not gone(one)
        ]
        self.orphans = [(time.monotonic(), one) for one in below]
        if late:
            signalled(late, signal.SIGKILL)
            raise Fault(
                "hang", f"{len(late)} processes were still there {ORPHAN_S} s after the kill before"
            )

    # ---- what is left
    def look(self, kill: Kill) -> None:
        """Every checkpoint verifies or is passed over, and one that verifies is that of the
        undisturbed run, to the bit.
        """
        newest = 0
        found = checkpoints.present(self.folder / "checkpoints")
        for path in found:
            try:
                saved = checkpoints.verify(path)
            except RunError:
                kill.damaged += 1
                continue
            newest, theirs = saved["step"], self.undisturbed / "checkpoints" / path.name
            # Asked to stop, it saves where the other does not; before a rollback, what the other
            # has replaced since. Both must load.
            alike = theirs.exists() and checkpoints.verify(theirs)["memory"] == saved["memory"]
            if alike and not equal(held(path), held(theirs)):
                raise Fault("corrupt", f"checkpoint {path} verifies, and is not what was saved")
        if found and kill.damaged == len(found):
            raise Fault("corrupt", f"none of the {len(found)} checkpoints is intact")
        kill.step = max((row["step"] for row in rows_of(self.folder)), default=0)
        kill.lost = max(kill.step - newest, 0)

    def ended(self, code: int) -> None:
        if code or not (self.folder / "DONE").exists():
            raise Fault("failed", f"a start ended with {code} without being killed; {self.tail()}")
        self.compare()

    def compare(self) -> None:
        """The run that is over against the one that nobody disturbed.

        Its last checkpoint to the bit, and every number of its journal in order.
        """
        mine, theirs = (
            checkpoints.present(folder / "checkpoints")[-1]
            for folder in (self.folder, self.undisturbed)
        )
        if mine.name != theirs.name or not equal(held(mine), held(theirs)):
            raise Fault("differs", f"{mine} is not {theirs}")
        a, b = (
            [untimed(row) for row in rows_of(folder)] for folder in (self.folder, self.undisturbed)
        )
        if a != b:
            first = next(
                (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y),
                min(len(a), len(b)),
            )
            raise Fault(
                "differs",
                f"journal of {len(a)} rows, undisturbed {len(b)}; first in row {first}:"
                f" {a[first : first + 1]} and {b[first : first + 1]}",
            )
        self.finished += 1
        print(
            f"{time.strftime('%H:%M:%S')} {self.processes} processes: a run has ended; weights,"
            f" optimizers and {len(a)} journal rows are those of the undisturbed one",
            flush=True,
        )

    def tail(self) -> str:
        return "it said: " + self.output.read_text(errors="replace")[-1500:].replace("\n", " | ")


# ---- processes
def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def ranks_of(below: list[psutil.Process]) -> list[psutil.Process]:
    """The ranks below a launcher in the order of their numbers, without the decoding processes that
    they have forked.
    """
    found = {}
    for one in below:
        with contextlib.suppress(psutil.Error):
            if str(PROGRAM) in " ".join(one.cmdline()) and "RANK" in one.environ():
                found[one.pid] = (int(one.environ()["RANK"]), one.ppid(), one)
    return [
        one
        for _, parent, one in sorted(found.values(), key=lambda each: each[0])
        if parent not in found
    ]


def gone(one: psutil.Process) -> bool:
    try:
        return not one.is_running() or one.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def signalled(targets: list[psutil.Process], number: int) -> None:
    for one in targets:
        with contextlib.suppress(psutil.Error):
            one.send_signal(number)


def end(process: psutil.Popen) -> None:
    below = children(process)
    signalled([process, *below], signal.SIGKILL)
    process.wait()
    psutil.wait_procs(below, timeout=20)


# ---- files
def lines_of(path: Path) -> list[dict]:
    """Whole lines; the last may be in the writing, or torn."""
    found = []
    for text in path.read_text(errors="replace").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            found.append(json.loads(text))
    return found


def rows_of(folder: Path) -> list[dict]:
    return lines_of(folder / "journal.jsonl")


def events_of(folder: Path) -> list[dict]:
    return lines_of(folder / "events.jsonl")


def untimed(row: dict) -> dict:
    return {
        key: value
        for key, value in row.items()
        if key not in ("seconds", "samples_per_second") and not key.startswith("time/")
    }


def held(path: Path) -> tuple[dict, dict]:
    """All that a checkpoint restores: networks, and optimizers with their counters."""
    return load_file(path / "networks.safetensors"), torch.load(
        path / "training.pt", weights_only=True
    )


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


# ---- what came of it
def table(kills: list[Kill]) -> str:
    """Markdown, a row for each kind of kill."""
    rows = [
        (
            "| kind | kills, with 1/2/3 processes | where it hit | training again after, s | steps"
            " lost | hangs | damaged, passed over | corrupt, would be loaded |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in (*[kind for kind in KINDS if any(kill.kind == kind for kill in kills)], "all"):
        some = [kill for kill in kills if kind in (kill.kind, "all")]
        counts = collections.Counter(kill.processes for kill in some)
        where = collections.Counter(kill.moment.partition(", ")[2] or kill.moment for kill in some)
        again = [kill.again_s for kill in some if kill.again_s is not None]
        rows.append(
            " | ".join(
                [
                    f"| {kind}",
                    f"{len(some)} ({'/'.join(str(counts[n]) for n in sorted(counts))})",
                    (
                        "; ".join(f"{count} {name}" for name, count in where.most_common())
                        if kind != "all"
                        else ""
                    ),
                    (
                        f"{statistics.median(again):.1f} [{min(again):.1f}..{max(again):.1f}]"
                        if again
                        else "–"
                    ),
                    (
                        f"{statistics.median(kill.lost for kill in some):g}"
                        f" [{min(kill.lost for kill in some)}..{max(kill.lost for kill in some)}],"
                        f" {sum(kill.lost for kill in some)} in all"
                    ),
                    str(sum(kill.fault == "hang" for kill in some)),
                    str(sum(kill.damaged for kill in some)),
                    f"{sum(kill.fault == 'corrupt' for kill in some)} |",
                ]
            )
        )
    return "\n".join(rows)


def main(argv: list[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", default="1,2,3")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for run folders; what went wrong stays there")
    asked = parser.parse_args(argv)
    where = asked.folder or Path(tempfile.mkdtemp(prefix="distgan-chaos-"))
    where.mkdir(parents=True, exist_ok=True)
    if build_command.main(["particles", str(where / "particles"), "--n", "60", "--workers", "1"]):
        return 1
    began, campaigns, numbers = (
        time.monotonic(),
        [],
        [int(text) for text in asked.processes.split(",")],
    )
    for i, processes in enumerate(numbers):
        first, last = (asked.kills * k // len(numbers) for k in (i, i + 1))
        kinds = [KINDS[k % len(KINDS)] for k in range(first, last)]
        campaigns.append(
            Campaign(
                processes, kinds, asked.seed, where / "particles", where / f"{processes}-processes"
            )
        )
        campaigns[-1].fight()
    kills, faults = (
        [kill for one in campaigns for kill in one.kills],
        [fault for one in campaigns for fault in one.faults],
    )
    print(
        (
            f"\n{table(kills)}\n\n{len(kills)} kills, {sum(one.finished for one in campaigns)}"
            " times a run came to its end, each time that of the undisturbed one;"
            f" {(time.monotonic() - began) / 60:.0f} minutes"
            if not faults
            else f"\n{table(kills)}\n\n" + "\n".join(f"FAULT: {fault}" for fault in faults)
        ),
        flush=True,
    )
    if not faults and not asked.folder:
        shutil.rmtree(where)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
