"""Wrong input is one clear error before anything begins, in this process."""

import errno
import fcntl
import os
import shutil
import signal
from pathlib import Path

import pytest
from input_cases import begun, damage, listing, only_one

from distgan import cli, train
from distgan.core.errors import ConfigError, DataError, LaunchError, RunError
from distgan.distributed import ranks
from distgan.launchers.local import run as local
from distgan.shards.build import command as build_command


@pytest.fixture
def data(particles, tmp_path, monkeypatch):
    """A copy of a good data set, as `data` in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(particles, "data")
    return Path("data")


@pytest.fixture
def folder(data, tmp_path):
    """The folder of a run that was begun, as a start leaves it."""
    from distgan.runs.folder import RunFolder

    opened = RunFolder(*begun())
    yield opened
    opened.close()


@pytest.fixture
def refused(data, tmp_path, capfd):
    """`refused("sagan", …)` -> the one message of a start that must be refused without a trace."""

    def check(*words: str, command=train.main) -> str:
        before = listing(tmp_path)
        assert cli.guarded(command, list(words)) == 2
        assert listing(tmp_path) == before
        out, err = capfd.readouterr()
        only_one(err)
        assert out == ""
        return err

    return check


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [],
            (
                "missing; a recipe (capacity, r3gan, sagan, sagan-paper, timbre, waveform,"
                " waveform-collapsed, wgan_flowers), one of your own (its file, or"
                " pkg.module:Class), or a run file"
            ),
        ),
        (["data=data"], "the first word names a recipe"),
        (["sagan"], "data: missing; give it as data=…"),
        (["sagan", "data=data", "batch"], '"batch" is not of the form key=value'),
        (["sagan", "data=data", "=3"], '"=3" is not of the form key=value'),
        (
            ["sagan", "data=data", "--dryrun"],
            (
                "  --dryrun: no such option (did you mean --dry-run?)\noptions: --dry-run,"
                " --all, --doctor, --find-batch, --processes, --memory, --help; settings are"
                " written key=value\n"
            ),
        ),
        (["sagan", "data=data", "batch=0"], "batch: found 0"),
        (["sagan", "data=data", "experiment=../x"], 'experiment: found "../x"'),
        (["sagan", "data=data", "data=" + "x" * 300], "File name too long"),
        (
            ["sagan", "data=nowhere"],
            "no shards in nowhere: there is no such folder. Make them: distgan shard images",
        ),
        (
            ["sagan", "data=data/train"],
            "data/train is one split of a data set; name the folder that holds both: data=data",
        ),
        (
            ["sagan", "data=data/dataset.json"],
            "data/dataset.json is a file; a data set is a folder",
        ),
        (["missing.yaml"], "cannot read the run file missing.yaml: No such file or directory"),
        (["sagan", "data=data", "machine.device=cuda"], "torch sees no CUDA device here"),
        (
            ["sagan", "data=data", "evaluate.inception=nowhere.pth"],
            "evaluate.inception=nowhere.pth: no such file",
        ),
        (["sagan", "data=data", "evaluate.inception=data/dataset.json"], "SHA-256 is "),
        (
            ["sagan", "data=data", "bn_group=5"],
            "groups of 5 samples does not fit micro-batches of 16 samples",
        ),
        (
            ["sagan", "data=data", "machine.accumulation=2"],
            "groups of 16 samples does not fit micro-batches of 8 samples",
        ),
        (["sagan", "data=data", "batch=15", "machine.accumulation=2"], "2 does not divide 15"),
        (["sagan", "data=data", "machine.folder=data"], "data is not empty and no run folder"),
        (["sagan", "data=data", "machine.folder=data/dataset.json"], "no run folder"),
        (["sagan", "data=data", "machine.runs=data/dataset.json"], "cannot write the run folder"),
        (
            ["sagan", "data=data", "machine.runs=/proc/nowhere"],
            "cannot write the run folder /proc/nowhere",
        ),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_wrong_line(refused, words, said):
    if "machine.device=cuda" in words and ranks.torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    assert said in refused(*words)


def test_a_broken_run_file(refused):
    Path("mine.yaml").write_text("recipe: sagan\nbatch: 1\nbatch: 2\n")
    assert "mine.yaml is not valid YAML: key batch stands twice" in refused(
        "mine.yaml", "data=data"
    )


def test_a_dry_run_refuses_the_same(refused):
    assert "2 does not divide 15" in refused(
        "sagan", "data=data", "batch=15", "machine.accumulation=2", "--dry-run"
    )


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (
            {"SLURM_STEP_NUM_TASKS": "2"},
            "SLURM_STEP_NUM_TASKS=2: 2 processes were started, but without RANK and WORLD_SIZE",
        ),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE=2: 2 processes were started"),
        (
            {"WORLD_SIZE": "2"},
            (
                "RANK is missing; LOCAL_RANK is missing; MASTER_ADDR is missing; MASTER_PORT is"
                " missing"
            ),
        ),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two' is no number"),
        (
            {
                "WORLD_SIZE": "2",
                "RANK": "2",
                "LOCAL_RANK": "0",
                "MASTER_ADDR": "localhost",
                "MASTER_PORT": "1",
            },
            "RANK=2, allowed are 0 to 1",
        ),
        ({"RANK": "1"}, "RANK=1, allowed are 0 to 0 with WORLD_SIZE=missing"),
    ],
)
def test_an_environment_of_half_a_launcher(refused, monkeypatch, env, said):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert said in refused("sagan", "data=data")


def test_missing_shards(refused):
    Path("data/validation/validation-000000.tar").unlink()
    assert "data/validation/validation-000000.tar is missing" in refused("sagan", "data=data")
    shutil.rmtree("data/validation")
    assert "data/validation" in refused("sagan", "data=data")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("dataset.json", "{", "dataset.json is damaged"),
        ("dataset.json", '{"sample": {"channels": "x"}}', "dataset.json is damaged"),
        ("dataset.json", "[" * 100_000, "dataset.json is damaged"),
        ("dataset.json", "[]", "dataset.json is damaged (it has no description of a sample)"),
        ("train/manifest.json", "{}", "train/manifest.json is not a manifest"),
        ("train/manifest.json", "\x00", "train/manifest.json is damaged"),
        ("train/train-000000.json", "[]", "train/train-000000.json is damaged"),
    ],
)
def test_a_damaged_file_of_a_data_set(refused, file, text, said):
    Path("data", file).write_text(text)
    assert said in refused("sagan", "data=data")


def test_a_stale_index(refused):
    shutil.copy("data/validation/validation-000000.json", "data/train/train-000000.json")
    assert "train-000000.json is stale or of another shard" in refused("sagan", "data=data")


def test_images_of_another_size(refused):
    assert (
        build_command.main(["particles", "small", "--n", "8", "--size", "48", "--workers", "1"])
        == 0
    )
    assert (
        "sagan does not train on images of 48x48 pixels: the shorter side must be 16, 32, 64, 128"
        in refused_after_output(refused, "sagan", "data=small")
    )


def test_a_data_set_that_is_too_small(refused):
    assert build_command.main(["particles", "two", "--n", "2", "--workers", "1"]) == 0
    assert "the training split of two holds 1 image" in refused_after_output(
        refused, "sagan", "data=two"
    )


def refused_after_output(refused, *words):
    refused.__closure__[0].cell_contents.readouterr()
    return refused(*words)


def test_a_damaged_sample_that_a_decoding_process_meets(data):
    """The loader must not add its traceback."""
    import torch

    from distgan.config.batch_layout import fit
    from distgan.data.dataset import Data
    from distgan.data.loader import Stream

    name = damage(data)
    stream = iter(Stream(Data("data"), 0, fit(6, 1, 1), 0, torch.device("cpu"), workers=1))
    said = ""
    try:  # pytest.raises would keep the loader, whose processes then end by time-out
        for _ in range(9):
            next(stream)
    except DataError as error:
        said = str(error)
    assert f"{name} at bytes" in said and "Traceback" not in said


def test_a_data_set_made_with_other_options(refused):
    said = refused("particles", "data", "--n", "61", "--workers", "1", command=build_command.main)
    assert (
        "data was made with other options; nothing was overwritten" in said
        and "--n: 60 there, 61 now" in said
    )


def test_a_run_folder_of_other_settings(refused, folder):
    folder.close()
    said = refused("sagan", "data=data", "machine.folder=begun", "ngf=4", "seed=3")
    assert "the run folder begun belongs to another run; nothing was changed:" in said
    assert (
        "\n  ngf: 64 in the folder, 4 requested\n" in said
        and "\n  seed: 0 in the folder, 3 requested\n" in said
    )


def test_a_folder_in_which_another_process_trains(refused, folder):
    assert "another process is training in begun" in refused(
        "sagan", "data=data", "machine.folder=begun"
    )


def test_a_damaged_identity(refused, folder):
    folder.close()
    Path("begun/identity.json").write_text("{")
    assert "begun/identity.json is damaged" in refused("sagan", "data=data", "machine.folder=begun")


def test_a_start_that_was_killed_early_can_be_repeated(folder):
    """Before it had written its identity; a folder with anything else in it stays refused."""
    from distgan.recipes.sagan import Settings
    from distgan.runs.folder import RunFolder

    folder.close()
    Path("begun/identity.json").unlink()
    again = RunFolder(Settings(data="data", machine={"folder": "begun"}), "f", {})
    again.close()
    assert Path("begun/identity.json").exists()
    Path("begun/identity.json").unlink()
    Path("begun/journal.jsonl").touch()
    with pytest.raises(RunError, match="no identity.json"):
        RunFolder(Settings(data="data", machine={"folder": "begun"}), "f", {})


def test_removed_attempts_do_not_stop_the_next(folder):
    folder.close()
    for name in ("000", "002", "notes"):
        Path("begun/attempts", name).mkdir()
    again = type(folder)(*begun())
    again.begin({})
    again.close()
    assert Path("begun/attempts/003/attempt.json").exists()


@pytest.mark.parametrize(
    ("word", "said"), [("bacth=3", "did you mean batch?"), ("data=nowhere", "no shards in nowhere")]
)
def test_a_local_launch_looks_at_settings_and_data(refused, word, said):
    assert said in refused("--processes", "2", "sagan", "data=data", word, command=local.main)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConfigError("x"), ""),
        (RunError("x"), ""),
        (DataError("x"), "error: rank 1: x\n"),
        (LaunchError("x"), "error: rank 1: x\n"),
    ],
)
def test_another_rank_tells_only_what_it_alone_can_know(monkeypatch, capsys, error, told):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(cli.console, "TALKS", False)
    monkeypatch.setattr(cli, "WAIT_S", 0)

    def fail(argv):
        raise error

    assert cli.guarded(fail, []) == 2
    assert capsys.readouterr().err == told
    error.everywhere = True
    assert cli.guarded(fail, []) == 2
    assert capsys.readouterr().err == ""


def test_the_lock_goes_with_the_process(folder):
    with open("begun/.lock", "a") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.close()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_forked_process_does_not_keep_the_lock(folder):
    """A decoding process lives on for seconds after its rank was killed.

    The run must be free to start again at once.
    """
    ready, begun = os.pipe()
    child = os.fork()
    if not child:
        os.write(begun, b"!")
        signal.pause()
    try:
        os.read(ready, 1)
        folder.close()
        with open("begun/.lock", "a") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_system_without_locks_is_said(folder, monkeypatch, capsys):
    def unsupported(*args):
        raise OSError(errno.ENOSYS, "Function not implemented")

    folder.close()
    monkeypatch.setattr(fcntl, "flock", unsupported)
    type(folder)(*begun()).close()
    said = capsys.readouterr().out
    assert (
        "begun cannot be locked (Function not implemented)" in said
        and "another process" not in said
    )
