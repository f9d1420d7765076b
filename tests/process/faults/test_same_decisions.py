"""Decisions are functions of a run's identity: signals, kills, `machine.*`, shorter legs and the
number of processes change no rollback, no intervention, no early end and no weight.
"""

import errno
import json
import os
import random
import signal
import textwrap

import pytest
import torch
from broken_trainers import NAN_UNTIL_HALVED
from processes import TOLERANCE, broken, final, line, run

from distgan.core.errors import DiskError
from distgan.recipes import sagan
from distgan.runs import checkpoints
from distgan.training import attempt

# Three steps an epoch. D learns so fast that it is soon too strong, healthy before.
SETTINGS = {
    "ngf": 2,
    "ndf": 2,
    "latent": 4,
    "batch": 18,
    "epochs": 12,
    "precision": "float64",
    "validate_every": 1,
    "sample_every": 50,
    "rollback_every": 2,
    "g_lr": 1e-3,
    "d_lr": 5e-2,
    "evaluate": {"schedule": [[None, 2]], "samples": 8},
}
WATCH = {
    "window": 3,
    "valid_window": 1,
    "settle_epochs": 1,
    "d_loss_strong": 0.32,
    "score_flat_change": 0.99,  # no score improves so much as to excuse a strong D
    "diversity_fall": None,
    "diversity_low": None,
    "score_jump": None,
}
MONITORS = {
    "rollback": {"watch": {"on_trouble": "rollback", **WATCH}},
    "adapt": {"d_lr": 5e-3, "watch": {"on_trouble": "adapt", **WATCH, "d_loss_strong": 0.36}},
    "patience": {"patience": 3, "g_lr": 5e-2},
    "max_skips": {"max_skips": 2, "d_lr": 1e-3},
}
# Steps at which a run is asked to stop; settings of the machine; epochs of each leg; processes; the
# place at which it is killed for the first time that it comes there.
WAYS = {
    "signals": {"stops": 3},
    "every checkpoint": {"machine": {"checkpoint_every": 0.5}},
    "few checkpoints": {"machine": {"checkpoint_every": 3.5, "keep": 1}},
    "no checkpoint": {"machine": {"checkpoint_every": 1000}},
    "journal": {"machine": {"journal_every": 3, "flush_steps": 7}},
    "legs": {"legs": (1.5, 3.5)},
    "no room for targets": {"machine": {"on_full_disk": "warn", "checkpoint_every": 1, "keep": 1}},
    "two processes": {"processes": 2},
    "killed after the rewind": {"kill": "load"},
    "killed before the save": {"kill": "apply"},
    "killed after the save": {"kill": "event"},
    # What the gate tries of all these.
    "much at once": {
        "stops": 3,
        "legs": (1.5, 3.5),
        "machine": {"checkpoint_every": 3.5, "keep": 1, "journal_every": 3, "flush_steps": 7},
    },
    "two processes, killed": {"processes": 2, "kill": "apply"},
}
# The first rollback ends with a kill at one of its stages.
KILL = """
    import os, signal
    from distgan.runs import checkpoints
    from distgan.training import checks, loop
    def killing(owner, name, before):
        usual = getattr(owner, name)
        def killed(*args, **kwargs):
            if not before:
                usual(*args, **kwargs)
            if loop.rolling and not os.path.exists("killed"):
                open("killed", "w").close()
                os.kill(0, signal.SIGKILL)
            if before:
                return usual(*args, **kwargs)
        setattr(owner, name, killed)
    usual = loop.Loop._roll_back
    def rolling(self, now, decision):
        loop.rolling = True
        return usual(self, now, decision)
    loop.rolling, loop.Loop._roll_back = False, rolling
    owner, name, before = {
        "load": (checkpoints, "load", True),
        "apply": (checks.Checks, "apply", False),
        "event": (loop.Loop, "_status", True),
    }[PLACE]
    killing(owner, name, before)
"""


@pytest.fixture(scope="module")
def undisturbed(particles, tmp_path_factory):
    """Return a function of the monitor's name: what its run decides, and its weights."""
    ends = {}

    def end(monitor):
        if monitor not in ends:
            folder = tmp_path_factory.mktemp(monitor)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                if monitor == "max_skips":
                    exec_here(NAN_UNTIL_HALVED, patch)
                assert train(particles, folder / "run", monitor) == 0
            ends[monitor] = (*outcome(folder / "run"), rows_of(folder / "run"))
        return ends[monitor]

    return end


def exec_here(fault, patch):
    """Put a fault into this process for the length of a test."""
    patch.setattr(sagan.Recipe, "step", sagan.Recipe.step)
    exec(textwrap.dedent(fault), {})


def train(data, folder, monitor, machine=None, epochs=12):
    settings = SETTINGS | MONITORS[monitor] | {"data": str(data), "epochs": epochs}
    place = {"folder": str(folder), "device": "cpu", "workers": 0}
    return attempt.train(
        sagan, sagan.Settings(**settings, machine=place | (machine or {})), {}
    ).exit_code


def outcome(folder):
    """Return (decisions, step of the end, weights). A decision made again after a kill is one."""
    decisions = []
    for event in map(json.loads, (folder / "events.jsonl").read_text().splitlines()):
        if event["event"] in ("adapt", "rollback", "done"):
            kept = {k: v for k, v in event.items() if k not in ("time", "message", "advice")}
            if kept not in decisions[-1:]:
                decisions.append(kept)
    last = max(i for i, decision in enumerate(decisions) if decision["event"] == "done")
    decisions = [d for i, d in enumerate(decisions) if d["event"] != "done" or i == last]
    return decisions, json.loads((folder / "DONE").read_text())["step"], final(folder)


def rows_of(folder):
    """Return (step, keys) of the journal's rows, without times and what only a leg's end has."""
    return [
        (row["step"], {key for key in row if not key.startswith(("time/", "samples_per_second"))})
        for row in map(json.loads, (folder / "journal.jsonl").read_text().splitlines())
        if "unscheduled" not in row
    ]


def test_each_monitor_acts(undisturbed):
    """Or the comparisons would compare nothing."""
    acts = {
        monitor: [decision["event"] for decision in undisturbed(monitor)[0]] for monitor in MONITORS
    }
    assert acts["rollback"] == ["rollback"] * 3 + ["done"] and "adapt" in acts["adapt"]
    assert acts["max_skips"] == ["rollback", "done"]
    assert undisturbed("patience")[1] < 36 and undisturbed("rollback")[1] < 36


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=() if i >= len(WAYS) - 2 else pytest.mark.nightly)
        for i, way in enumerate(WAYS)
    ],
)
@pytest.mark.parametrize("monitor", MONITORS)
def test_the_same_decisions(monitor, way, undisturbed, particles, tmp_path, monkeypatch):
    expected, how = undisturbed(monitor), WAYS[way]
    if "processes" in how or "kill" in how:
        in_processes(particles, tmp_path, monitor, how)
    else:
        monkeypatch.chdir(tmp_path)
        in_this_process(particles, tmp_path, monitor, how, monkeypatch)
    decisions, step, weights = outcome(tmp_path / "run")
    assert (decisions, step) == expected[:2]
    if "journal_every" not in how.get("machine", {}):
        assert rows_of(tmp_path / "run") == expected[3]
    assert weights.keys() == expected[2].keys()
    for name, value in weights.items():
        if how.get("processes"):
            torch.testing.assert_close(value, expected[2][name], rtol=TOLERANCE, atol=TOLERANCE)
        else:
            assert torch.equal(value, expected[2][name]), name


def in_this_process(particles, tmp_path, monitor, how, patch):
    rng = random.Random(f"{monitor} {how}")
    stops, asked = set(rng.sample(range(2, 12), how.get("stops", 0))), []
    if monitor == "max_skips":
        exec_here(NAN_UNTIL_HALVED, patch)
    usual = sagan.Recipe.step

    def step(self, batches, now):
        if now.step in stops:
            stops.remove(now.step)
            asked.append(now.step)
            os.kill(os.getpid(), signal.SIGTERM)
        return usual(self, batches, now)

    patch.setattr(sagan.Recipe, "step", step)
    codes, machine = [], how.get("machine", {})
    if "on_full_disk" in machine:
        refuse_targets_once(patch)
    for epochs in (*how.get("legs", ()), 12):
        while (code := train_or_2(particles, tmp_path / "run", monitor, machine, epochs)) != 0:
            codes.append(code)
    if "on_full_disk" in machine and monitor in ("rollback", "max_skips"):
        assert codes.count(2) >= 2  # at a rollback, and at the last checkpoint
    assert len(asked) >= min(how.get("stops", 0), 1)


def train_or_2(*args):
    try:
        return train(*args)
    except DiskError:
        return 2


def refuse_targets_once(patch):
    """Let the first write of each checkpoint of the grid of rollback targets fail."""
    usual, refused = checkpoints.save_file, set()

    def save_file(tensors, path, *args, **kwargs):
        if int(path.parent.name[-8:]) % 6 == 0 and path.parent.name not in refused:
            refused.add(path.parent.name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return usual(tensors, path, *args, **kwargs)

    patch.setattr(checkpoints, "save_file", save_file)


def in_processes(particles, tmp_path, monitor, how):
    fault = NAN_UNTIL_HALVED if monitor == "max_skips" else ""
    if how.get("kill"):
        fault += KILL.replace("PLACE", repr(how["kill"]))
    settings = tmp_path / "run.yaml"
    settings.write_text(json.dumps({"recipe": "sagan"} | SETTINGS | MONITORS[monitor]))
    way = (
        line("torchrun", how["processes"], broken(tmp_path, fault))
        if "processes" in how
        else [
            *line("python")[:1],
            str(broken(tmp_path, fault)),
        ]
    )
    words = (
        str(settings),
        f"data={particles}",
        f"machine.folder={tmp_path / 'run'}",
        "machine.device=cpu",
        "machine.workers=0",
    )
    if how.get("kill") and monitor in ("rollback", "max_skips"):
        run(way, *words, cwd=tmp_path, code=None)
        assert (tmp_path / "killed").exists() and not (tmp_path / "run" / "DONE").exists()
    run(way, *words, cwd=tmp_path)
