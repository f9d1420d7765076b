"""Files of a run that are damaged, cut short, gone, or replaced.

It goes on from the checkpoint before, or refuses with one message where none is left.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from bounds import bounded
from players import STATE, players
from processes import TINY, final, journal
from safetensors.torch import load_file, save_file

from distgan import cli, train
from distgan.commands import evaluate, generate
from distgan.core.errors import DistganError, RunError
from distgan.runs import checkpoints
from distgan.runs.locate import find_start

FILES = ("networks.safetensors", "training.pt", "checkpoint.json")


@pytest.fixture
def two(tmp_path):
    """Two checkpoints, of which the newer one may be damaged."""
    checkpoints.save(tmp_path, 1, checkpoints.held(players(0)), STATE)
    checkpoints.save(tmp_path, 2, checkpoints.held(players(1)), STATE)
    return tmp_path


def passed_over(folder: Path) -> bool:
    return checkpoints.newest(folder)[1]["step"] == 1


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.gate] if n == "training.pt" else []) for n in FILES],
)
def test_any_byte(name, two, capsys):
    """Every byte of every file, with its lowest and with its highest bit changed."""
    path = two / "00000002" / name
    content, about = path.read_bytes(), checkpoints.verify(two / "00000002")
    for at in range(len(content)):
        for bit in (1, 128):
            path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
            # White space between the values of checkpoint.json carries nothing.
            assert (
                passed_over(two)
                or name == "checkpoint.json"
                and checkpoints.verify(two / "00000002") == about
            ), (at, bit)
    capsys.readouterr()
    path.write_bytes(content)
    assert not passed_over(two)


@pytest.mark.parametrize("name", FILES)
def test_any_length(name, two):
    path = two / "00000002" / name
    content = path.read_bytes()
    for size in {0, 1, 8, len(content) - 1, *range(0, len(content), 61)}:
        path.write_bytes(content[:size])
        assert passed_over(two), size
    path.write_bytes(content + b"\0")
    assert passed_over(two)
    path.unlink()
    assert passed_over(two)
    path.mkdir()  # a folder in its place
    assert passed_over(two)


def test_any_field_of_the_description(two):
    path = two / "00000002/checkpoint.json"
    about = json.loads(path.read_text())
    for key in about:
        for value in (None, [], "x", 10**30, {"a": 1}):
            path.write_text(json.dumps(about | {key: value}))
            assert passed_over(two) or about[key] == value, (key, value)
        path.write_text(json.dumps({name: value for name, value in about.items() if name != key}))
        assert passed_over(two), key
    for text in ("", "null", "[]", "[" * 100_000, '{"a": 1}', "\udcff"):
        path.write_bytes(text.encode(errors="surrogateescape"))
        assert passed_over(two), text[:20]


def test_links_and_strangers(two, tmp_path_factory):
    """A file more is none of ours.

    A link counts as what it leads to, a folder that is a link is no checkpoint, and deleting never
    follows one.
    """
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (two / "00000002/notes.txt").write_text("mine")
    (two / "00000009").symlink_to(two / "00000002")
    (two / "0000000x").mkdir()
    (two / "00000008").write_text("a file")
    assert checkpoints.newest(two)[1]["step"] == 2
    shutil.copytree(two / "00000001", elsewhere / "00000001")
    (two / "00000010").symlink_to(elsewhere / "00000001")
    checkpoints.discard_after(two, 2)
    checkpoints.prune(two, 1, set())
    assert (elsewhere / "00000001/checkpoint.json").exists()
    checkpoints.save(two, 8, checkpoints.held(players(0)), STATE)  # over the file
    checkpoints.save(two, 10, checkpoints.held(players(0)), STATE)  # over the link
    (two / "00000007").symlink_to("nowhere")
    checkpoints.save(two, 7, checkpoints.held(players(0)), STATE)
    assert (
        checkpoints.newest(two)[1]["step"] == 10
        and (elsewhere / "00000001/checkpoint.json").exists()
    )
    checkpoints.prune(two, 9, set())  # what was in their places is gone
    assert sorted(path.name for path in two.glob(".*")) == []
    (two / "00000010/training.pt").unlink()
    (two / "00000010/training.pt").symlink_to("/dev/null")
    assert checkpoints.newest(two)[1]["step"] == 8


def test_another_ones_checkpoint_under_the_name(two):
    shutil.rmtree(two / "00000002")
    shutil.copytree(two / "00000001", two / "00000002")
    assert passed_over(two)


def test_a_sealed_checkpoint_that_is_no_state_is_refused_without_unpickling(two):
    """Checksums that fit, contents that do not.

    Said, not raised as what torch or safetensors raise.
    """
    path = two / "00000002"
    for name, content in (
        ("networks.safetensors", b"\xff" * 40),
        ("training.pt", b"\x80\x02K\x01."),
        ("training.pt", b"PK\x03\x04"),
    ):
        kept = (path / name).read_bytes()
        (path / name).write_bytes(content)
        with pytest.raises(RunError, match="cannot be read"):
            checkpoints.load(path, players())
        (path / name).write_bytes(kept)


# ---- a whole run
@pytest.fixture(scope="module")
def trained(particles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert (
        train.main(
            [
                "sagan",
                f"data={particles}",
                f"machine.folder={folder}",
                "epochs=2",
                "machine.checkpoint_every=0.5",
                *TINY,
            ]
        )
        == 0
    )
    return folder


@pytest.fixture
def goes_on(trained, particles, tmp_path, capsys):
    """`goes_on(damage)`: (exit code, output, folder) of the same line, after `damage(folder)`."""

    def check(damage) -> tuple[int, str, Path]:
        folder = tmp_path / "run"
        shutil.copytree(trained, folder)
        (folder / "DONE").unlink()
        damage(folder)
        words = [f"data={particles}", f"machine.folder={folder}", "machine.checkpoint_every=0.5"]
        with bounded():
            code = cli.guarded(train.main, ["sagan", *words, "epochs=2", *TINY])
        captured = capsys.readouterr()
        return code, captured.out + captured.err, folder

    return check


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_the_run_goes_on_from_the_checkpoint_before(name, damage, goes_on, trained):
    def harm(folder):
        path = checkpoints.present(folder / "checkpoints")[-1] / name
        content = path.read_bytes()
        at = len(content) // 2
        path.write_bytes(
            content[:at]
            + (bytes([content[at] ^ 4]) + content[at + 1 :] if damage == "flip" else b"")
        )
        if damage == "remove":
            path.unlink()

    code, output, folder = goes_on(harm)
    assert (
        code == 0
        and "falling back to the checkpoint before it" in output
        and "continuing from step" in output
    )
    mine, theirs = final(folder), final(trained)
    assert all(torch.equal(mine[key], value) for key, value in theirs.items())
    assert list(journal(folder)) == list(journal(trained))


def test_where_none_is_left_it_refuses_with_one_message(goes_on):
    def harm(folder):
        for path in checkpoints.present(folder / "checkpoints"):
            (path / "training.pt").write_bytes(b"")

    code, output, folder = goes_on(harm)
    assert code == 2 and output.count("error: none of the") == 1 and "Traceback" not in output
    assert len(checkpoints.present(folder / "checkpoints")) == 3  # nothing was deleted


def seal(path: Path, change) -> None:
    """Change the description of a checkpoint, with a digest that fits."""
    about = json.loads((path / "checkpoint.json").read_text())
    change(about)
    for name, facts in about["files"].items():
        content = (path / name).read_bytes()
        facts |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    about["digest"] = checkpoints._digest(about)
    (path / "checkpoint.json").write_text(json.dumps(about))


def craft(path: Path, weights=None, states=None) -> None:
    """Change what a checkpoint holds, with digests that fit."""
    if weights:
        tensors = load_file(path / "networks.safetensors")
        weights(tensors)
        save_file(tensors, path / "networks.safetensors")
    if states:
        held = torch.load(path / "training.pt", weights_only=True)
        torch.save(states(held) or held, path / "training.pt")
    seal(path, lambda about: None)


def all_nan(tensors):
    tensors[next(iter(tensors))].fill_(float("nan"))


def whole_numbers(tensors):
    tensors |= {key: value.to(torch.int8) for key, value in tensors.items()}


def misshapen(held):
    held["G"]["optimizer"][0]["exp_avg"] = torch.zeros(7)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": all_nan},
        {"weights": whole_numbers},
        {"weights": lambda tensors: tensors.pop(next(iter(tensors)))},
        {"weights": lambda tensors: tensors.update(more=torch.zeros(1))},
        {"states": lambda held: [1, 2]},
        {"states": lambda held: {"G": [1]}},
        {"states": lambda held: {"D": held["G"]}},
        {"states": lambda held: held["G"].update(updates="3")},
        {"states": lambda held: held["G"].update(skips=-1)},
        {"states": lambda held: held["G"].update(optimizer=[])},
        {"states": lambda held: held["G"].update(optimizer={"state": {0: 3}})},
        {"states": lambda held: held["G"].update(optimizer={"a": {"b": torch.zeros(1)}})},
        {"states": misshapen},
    ],
)
def test_what_was_crafted_is_one_error(change, two):
    craft(two / "00000002", **change)
    assert checkpoints.newest(two)[1]["step"] == 2  # every digest fits
    with pytest.raises(RunError, match=r"^checkpoint .*00000002 (does not fit|holds weights)"):
        checkpoints.load(two / "00000002", players(0))


@pytest.mark.parametrize(
    "key, value",
    [
        ("samples", "9"),
        ("best", [1]),
        ("best", {"step": "x"}),
        ("warned", 3),
        ("memory", {"rollbacks": 1}),
        ("memory", {"epoch": 1.0, "answered": {"a": "b"}}),
        ("healthy", "1"),
        ("changed", []),
        ("mishaps", {"G": {"updates": "x"}}),
    ],
)
def test_a_state_of_other_types_is_passed_over(key, value, two):
    seal(two / "00000002", lambda about: about.update({key: value}))
    assert passed_over(two)


def test_weights_that_are_not_finite_are_refused_by_every_verb(goes_on, particles):
    """No run saves such; one that was given them would draw, and score, nothing."""

    def harm(folder):
        for path in checkpoints.present(folder / "checkpoints"):
            craft(path, weights=all_nan)

    code, output, folder = goes_on(harm)
    assert code == 2 and output.count("error: ") == 1 and "not finite numbers" in output
    for verb, words in (
        (generate, [f"{folder}@last", str(folder / "drawn"), "--n", "2", "--device", "cpu"]),
        (evaluate, [f"{folder}@last", f"data={particles}", "n=8", "device=cpu"]),
    ):
        with pytest.raises(RunError, match="not finite numbers"):
            verb.main(words)
    assert not (folder / "drawn/result.csv").exists()


@pytest.mark.parametrize("name", ["identity.json", "config.yaml", "journal.jsonl", "events.jsonl"])
def test_a_pipe_or_a_device_hangs_no_verb(name, goes_on):
    """Where a file decides whose run it is, or must be written, each verb has one error."""

    def harm(folder):
        (folder / name).unlink()
        if name in ("identity.json", "events.jsonl"):
            os.mkfifo(folder / name)
        else:
            (folder / name).symlink_to("/dev/zero")

    code, output, folder = goes_on(harm)
    assert "Traceback" not in output
    assert (code, output.count("error: ")) == ((0, 0) if name == "config.yaml" else (2, 1)), output
    if name != "config.yaml":  # train wrote that one anew
        return
    harm(folder)
    for words in ([str(folder / "drawn"), "--n", "2", "--device", "cpu"], ["n=8", "device=cpu"]):
        verb = generate if "--n" in words else evaluate
        with bounded(), pytest.raises(DistganError, match=r"config\.yaml"):
            verb.main([f"{folder}@last", *words])


def of_another_run(about) -> None:
    about["identity"]["id"] = "0badcafe"
    about["identity"]["settings"] |= {"loss": "hinge", "seed": 8}


def test_another_runs_checkpoint_is_refused_and_nothing_changed(goes_on, trained):
    def harm(folder):  # one in the middle, after which rows of the journal would be cut off
        shutil.rmtree(checkpoints.present(folder / "checkpoints")[-1])
        seal(checkpoints.present(folder / "checkpoints")[-1], of_another_run)

    code, output, folder = goes_on(harm)
    last = checkpoints.present(folder / "checkpoints")[-1]
    assert code == 2 and "Traceback" not in output
    assert (
        f"error: checkpoint {last} belongs to another run, 0badcafe (loss: hinge in the checkpoint,"
        " vanilla requested; seed: 8 in the checkpoint, 0 requested); move it away, or start a new"
        " run from it with grow=CHECKPOINT\n"
    ) in output
    kept, usual = ((each / "journal.jsonl").read_bytes() for each in (folder, trained))
    assert kept == usual
    words = [f"{folder}@last", str(folder / "drawn"), "--n", "2", "--device", "cpu"]
    with pytest.raises(RunError, match="belongs to another run, 0badcafe"):
        generate.main(words)
    assert find_start("grow", f"{folder}@last") == last  # on purpose it is taken


@pytest.mark.parametrize("identity", [None, 3, {}, {"settings": 3, "data": 4}, {"settings": {}}])
def test_an_identity_that_is_none_is_damage(identity, goes_on):
    def harm(folder):
        path = checkpoints.present(folder / "checkpoints")[-1]
        seal(path, lambda about: about.update(identity=identity))

    code, output, _ = goes_on(harm)
    assert code == 2 and output.count("error: ") == 1
    assert "or the identity.json of its run is damaged" in output


def test_a_checkpoint_of_a_version_that_recorded_no_run_serves(goes_on, trained):
    def harm(folder):
        for path in checkpoints.present(folder / "checkpoints"):
            seal(path, lambda about: about.pop("identity"))
        shutil.rmtree(checkpoints.present(folder / "checkpoints")[-1])

    code, output, folder = goes_on(harm)
    assert code == 0 and "continuing from step" in output
    assert all(final(folder)[key].equal(value) for key, value in final(trained).items())


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[" * 100_000, b"null", b"{}", b'"x"', b"[1]"],
    ids=lambda content: repr(content[:6]),
)
@pytest.mark.parametrize(
    "name",
    [
        "status.json",
        "config.yaml",
        "overrides.yaml",
        "events.jsonl",
        "DONE",
        "attempts/000/attempt.json",
    ],
)
def test_what_only_tells_may_be_damaged(name, content, goes_on, trained):
    code, output, folder = goes_on(lambda folder: (folder / name).write_bytes(content))
    assert code == 0, output
    assert (folder / "DONE").read_text().startswith('{"step"')


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[" * 100_000, b"null", b"{}", b'{"settings": 3, "data": 4}', b"[1]"],
    ids=lambda content: repr(content[:9]),
)
def test_whose_run_it_is_must_be_readable(content, goes_on):
    code, output, _ = goes_on(lambda folder: (folder / "identity.json").write_bytes(content))
    assert (
        code == 2
        and output.count("error: ") == 1
        and "identity.json" in output
        and "Traceback" not in output
    )


@pytest.mark.parametrize(
    "torn",
    [b'{"step": 10, "ep', b"\xff\xff", b"{" * 100_000, b"null\n"],
    ids=lambda content: repr(content[:6]),
)
def test_a_torn_last_line(torn, goes_on, trained):
    def harm(folder):
        for name in ("journal.jsonl", "events.jsonl"):
            with open(folder / name, "ab") as file:
                file.write(torn)

    code, output, folder = goes_on(harm)
    assert code == 0 and list(journal(folder)) == list(journal(trained))


def test_a_damaged_line_in_the_middle_is_said(goes_on, trained):
    def harm(folder):
        path = folder / "journal.jsonl"
        lines = path.read_bytes().split(b"\n")
        lines[3] = lines[3][:20]
        path.write_bytes(b"\n".join(lines))

    code, output, _ = goes_on(harm)
    assert code == 0 and "journal.jsonl, line 4: damaged, and left out" in output
