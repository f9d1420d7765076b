"""Whole or not at all; verified; the one before where the newest is damaged."""

import json
import os
import shutil

import pytest
import torch
from players import STATE, players
from torch import nn

from distgan.config.sections import Machine
from distgan.core.errors import DiskError, RunError
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Player
from distgan.runs import checkpoints


def equal(a, b):
    return all(
        torch.equal(value, b["G"].tensors()[name]) for name, value in a["G"].tensors().items()
    )


def test_a_checkpoint_that_is_saved_anew_is_there_whenever_the_process_is_killed(
    tmp_path, monkeypatch
):
    """After a rollback the only checkpoint may be the one that is replaced."""
    checkpoints.save(tmp_path, 3, checkpoints.held(players(0)), STATE)
    replace, renamed = os.replace, []

    def killed(source, target, **folders):
        renamed.append(target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path, 3, checkpoints.held(players(1)), STATE)
    monkeypatch.setattr(os, "replace", replace)
    assert renamed and not (tmp_path / "00000003").exists()
    found = players(1)
    checkpoints.recover(tmp_path)
    path, state = checkpoints.newest(tmp_path)
    checkpoints.load(path, found)
    assert state["step"] == 3 and equal(found, players(0))
    checkpoints.save(tmp_path, 3, checkpoints.held(players(1)), STATE)
    checkpoints.prune(tmp_path, 1, set())
    checkpoints.load(checkpoints.newest(tmp_path)[0], found)
    assert equal(found, players(1)) and [one.name for one in tmp_path.iterdir()] == ["00000003"]


def test_everything_comes_back(tmp_path):
    a, b = players(0), players(1)
    checkpoints.save(tmp_path, 3, checkpoints.held(a), STATE)
    path, state = checkpoints.newest(tmp_path)
    assert state["step"] == 3
    assert not equal(a, b)
    checkpoints.load(path, b)
    assert equal(a, b)
    # The optimizer too: the next update is the same.
    x = [torch.ones(2, 3)]
    for p in (a["G"], b["G"]):
        p.update(lambda x, p=p: (p(x).square().mean(), {}), x, 0.0)
    assert equal(a, b)


@pytest.mark.parametrize("name", ["networks.safetensors", "training.pt", "checkpoint.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_passed_over(name, damage, tmp_path, capsys):
    checkpoints.save(tmp_path, 1, checkpoints.held(players(0)), STATE)
    path = checkpoints.save(tmp_path, 2, checkpoints.held(players(1)), STATE) / name
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    elif damage == "truncate":
        path.write_bytes(content[:-7])
    else:
        path.unlink()
    assert checkpoints.newest(tmp_path)[1]["step"] == 1
    assert f"{tmp_path / '00000002'} is damaged" in capsys.readouterr().out


def test_any_flipped_bit_of_the_description_is_noticed(tmp_path):
    path = checkpoints.save(tmp_path, 1, checkpoints.held(players()), STATE)
    content = (path / "checkpoint.json").read_bytes()
    for at in range(0, len(content), 3):
        if content[at : at + 1].isspace() and (content[at] ^ 1) in b" \t\n\r!":
            continue  # white space between values carries nothing
        (path / "checkpoint.json").write_bytes(
            content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        )
        with pytest.raises(RunError):
            checkpoints.verify(path)


def test_none_intact_is_an_error_and_none_at_all_is_not(tmp_path):
    assert checkpoints.newest(tmp_path / "nothing") is None
    path = checkpoints.save(tmp_path, 1, checkpoints.held(players()), STATE)
    (path / "training.pt").unlink()
    with pytest.raises(RunError, match="none of the 1 checkpoints"):
        checkpoints.newest(tmp_path)


def test_a_killed_save_leaves_nothing_under_the_final_name(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 1, checkpoints.held(players(0)), STATE)
    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoints.os,
            "replace",
            lambda *args, **more: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(tmp_path, 2, checkpoints.held(players(1)), STATE)
    assert [path.name for path in checkpoints.present(tmp_path)] == ["00000001"]
    checkpoints.save(tmp_path, 2, checkpoints.held(players(1)), STATE)
    checkpoints.prune(tmp_path, keep=2, also=set())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001", "00000002"]


@pytest.mark.parametrize("limit", [1, 900])
def test_a_full_disk_is_said_and_leaves_the_one_before(limit, tmp_path):
    """Files may grow to `limit` bytes: the weights meet it, or the optimizers."""
    import resource
    import signal

    checkpoints.save(tmp_path, 1, checkpoints.held(players()), STATE)
    usual, handler = (
        resource.getrlimit(resource.RLIMIT_FSIZE),
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))
    try:
        with pytest.raises(
            RunError, match=r"cannot write checkpoint .*00000002: .*; the one before it is kept"
        ):
            checkpoints.save(tmp_path, 2, checkpoints.held(players()), STATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]


def test_values_that_are_not_finite_are_not_saved(tmp_path):
    broken = players()
    with torch.no_grad():
        broken["G"].module.weight[0, 0] = float("nan")
    with pytest.raises(RunError, match="G.net.weight holds values that are not finite"):
        checkpoints.save(tmp_path, 1, checkpoints.held(broken), STATE)
    assert not checkpoints.present(tmp_path)


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step in range(1, 7):
        checkpoints.save(tmp_path, step, checkpoints.held(players()), STATE)
        checkpoints.prune(tmp_path, keep=2, also={2 if step > 1 else None})
    assert [int(path.name) for path in checkpoints.present(tmp_path)] == [2, 5, 6]


def test_before_a_checkpoint_that_could_not_be_written_one_is_kept(tmp_path):
    for step in (1, 2, 3, 5, 6):  # 4, to which a rollback would go, was refused
        checkpoints.save(tmp_path, step, checkpoints.held(players()), STATE)
        checkpoints.prune(tmp_path, keep=1, also={4 if step > 3 else None})
    assert [int(path.name) for path in checkpoints.present(tmp_path)] == [3, 6]
    with pytest.raises(DiskError, match="roll back to step 4, .* continues from step 3"):
        checkpoints.require_written(tmp_path, 4)
    assert [int(path.name) for path in checkpoints.present(tmp_path)] == [3]
    assert checkpoints.require_written(tmp_path, 3).name == "00000003"


def test_another_format_is_refused_with_both_versions(tmp_path):
    path = checkpoints.save(tmp_path, 1, checkpoints.held(players()), STATE)
    about = json.loads((path / "checkpoint.json").read_text()) | {"format": 99, "distgan": "9.9"}
    (path / "checkpoint.json").write_text(
        json.dumps(about | {"digest": checkpoints._digest(about)})
    )
    checkpoints.save(tmp_path, 0, checkpoints.held(players()), STATE)
    with pytest.raises(
        RunError,
        match=(
            r"has format 99 \(distgan 9.9\), this is distgan .*, format 1; continue with distgan"
            r" 9.9,"
            r" or move the folder"
        ),
    ):
        checkpoints.newest(
            tmp_path
        )  # not passed over for the older one: that would throw newer training away


def test_a_checkpoint_of_other_networks_is_refused(tmp_path):
    path = checkpoints.save(tmp_path, 1, checkpoints.held(players()), STATE)
    other = {
        "G": Player(
            Ranks(Machine(device="cpu")),
            nn.Linear(4, 2),
            lambda p: torch.optim.Adam(p, lr=0.1),
            ema=0.9,
        )
    }
    with pytest.raises(RunError) as refused:
        checkpoints.load(path, other)
    assert str(refused.value) == (
        f"checkpoint {path} does not fit this network (G.net.weight: [2, 3] in the checkpoint,"
        " [2, 4] in this network; G.ema.weight: [2, 3] in the checkpoint, [2, 4] in this network);"
        " its run has other settings, or is of another recipe"
    )
    with pytest.raises(RunError, match=r"D.net.bias: no such tensor in .*; and 5 more\)"):
        checkpoints.load(path, {"D": players()["G"]})


def test_nothing_is_unpickled(tmp_path):
    """training.pt is loaded with weights_only: a pickle that would run code is refused."""
    import pickle

    path = checkpoints.save(tmp_path, 1, checkpoints.held(players()), STATE)

    class Harmful:
        def __reduce__(self):
            return (shutil.rmtree, (str(tmp_path),))

    torch.save({"G": Harmful()}, path / "training.pt")
    with pytest.raises((RunError, pickle.UnpicklingError)):
        checkpoints.load(path, players())
    assert path.exists()


def test_modes_follow_the_umask(tmp_path):
    """So that the group that shares a folder of runs can evaluate them."""
    before = os.umask(0o027)
    try:
        path = checkpoints.save(tmp_path / "checkpoints", 1, checkpoints.held(players()), STATE)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o640}
    assert {folder.stat().st_mode & 0o777 for folder in (path, path.parent)} == {0o750}
