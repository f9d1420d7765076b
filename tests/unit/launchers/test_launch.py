"""What the commands print before anything is trained."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from processes import BIN, environment

from distgan import cli, train
from distgan.commands import new
from distgan.core.errors import ConfigError, LaunchError
from distgan.launchers.local import run as local
from distgan.runs import checkpoints

VERBS = (
    "shard",
    "index",
    "check",
    "new",
    "train",
    "run",
    "debug",
    "submit",
    "sweep",
    "status",
    "logs",
    "why",
    "show",
    "stop",
    "save",
    "cancel",
    "retry",
    "cost",
    "gc",
    "doctor",
    "dev-cluster",
    "capacity",
    "generate",
    "evaluate",
    "report",
    "completion",
)


def test_there_are_these_verbs():
    assert tuple(cli.VERBS) == VERBS


@pytest.fixture
def distgan(capsys, monkeypatch):
    """A function: (output, errors) of a command line, in this process."""

    def command(*words: str, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr("sys.argv", ["distgan", *words])
        ended = 0
        try:
            cli.main()
        except SystemExit as end:
            ended = end.code or 0
        printed = capsys.readouterr()
        assert ended == code, printed.err
        return printed

    return command


def test_the_installed_command(distgan):
    done = subprocess.run(
        [str(BIN / "distgan"), "shrad"], env=environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, *distgan("shrad", code=2))


# ---- help
@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches(verb, distgan):
    out, err = distgan(verb, "--help")
    assert err == "" and out.startswith("usage: ") and len(out.splitlines()) >= 8
    assert re.search(
        rf"^ *(example: )?(distgan {verb}|python -m distgan.train) \S+", out, re.MULTILINE
    ), out  # a line to copy
    assert "\n  -h, --help              print this" in out or verb == "shard"


def test_help_of_a_recipe_lists_every_setting(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.guarded(train.main, ["sagan", "--help"])
    out = capsys.readouterr().out
    for part in (
        "  batch=16 ",
        "  data=(required) ",
        "  evaluate.samples=500 ",
        "  machine.keep=3 ",
        "  ngf=64 ",
        "  watch.window=25 ",
    ):
        assert part in out


def test_help_of_a_recipe_begins_with_its_own_settings(tmp_path, capsys):
    new.main([str(tmp_path / "mine.py")])
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        train.COMMAND.parse([str(tmp_path / "mine.py"), "--help"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("usage: ") and lines[2].startswith("Settings of ")
    assert lines[4] == "latent=64 int: size of the noise vector"
    general = lines.index("Settings of every run")
    assert 4 < general < lines.index("options:") and not any("capacity" in line for line in lines)
    every = lines[general:]
    assert any(line.startswith("grow=null str | null: start from") for line in every)
    assert any(line.startswith('machine.engine="auto" auto | ddp | deepspeed: ') for line in every)
    schedule = next(line for line in every if line.startswith("evaluate.schedule="))
    assert " list of list of float | null: [until" in schedule


def test_an_unknown_verb(distgan):
    out, err = distgan("shrad", code=2)
    assert (
        "error: no verb 'shrad' (did you mean shard?); there are: shard, index, check, new, train,"
        " run, debug, submit"
        in err
        and "Traceback" not in err
    )
    assert not out and "shard       turn images" in distgan()[0]
    assert re.fullmatch(r"distgan \d+\.\d+\.\d+\n", distgan("--version")[0])


# ---- distgan run
def test_run_shows_a_line_that_starts_two_processes(capsys):
    """--multi_gpu, although there may be no GPU.

    With --cpu, accelerate starts a single process and says nothing.
    """
    assert local.main(["--processes", "2", "--show", "sagan", "data=my data", "epochs=1"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert (
        words[words.index("--num_processes") + 1] == "2"
        and "--multi_gpu" in words
        and "--cpu" not in words
    )
    assert Path(words[-4]).samefile(train.__file__) and words[-3:] == [
        "sagan",
        "data=my data",
        "epochs=1",
    ]


def test_options_of_run_may_stand_anywhere(capsys):
    assert local.main(["sagan", "data=my data", "--show", "--doctor", "--processes", "2"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[words.index("--num_processes") + 1] == "2" and words[-3:] == [
        "sagan",
        "data=my data",
        "--doctor",
    ]
    with pytest.raises(
        LaunchError, match="distgan train sagan 'data=my data' --find-batch --processes=2"
    ):
        local.main(["sagan", "data=my data", "--find-batch", "--processes", "2"])
    with pytest.raises(ConfigError, match="`distgan run --processes N …` starts several"):
        train.main(["sagan", "data=x", "--processes", "2"])
    with pytest.raises(SystemExit, match="0"):
        local.main(["--help"])
    assert "Takes what\n`distgan train` takes" in capsys.readouterr().out


def test_the_line_for_one_process_is_plain_python(capsys):
    assert local.main(["--show", "sagan"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert len(words) == 3 and Path(words[1]).samefile(train.__file__)


def test_an_engine_that_is_not_trained_is_refused_before_processes_start(particles):
    with pytest.raises(LaunchError, match="ZeRO stage 3 is refused"):
        local.main(
            [
                "--processes",
                "2",
                "sagan",
                f"data={particles}",
                "machine.engine=deepspeed",
                "machine.zero_stage=3",
            ]
        )


def test_less_than_one_process_is_refused(capsys):
    with pytest.raises(ConfigError, match="--processes: found '0', allowed: 1 to 4,096"):
        local.main(["--processes", "0", "sagan"])


# ---- dry run
# Weights of 4 x 4 kernels; generator 128 -> 512 -> 256 -> 128 -> 64 -> 1 channels without biases
# but in the last layer.
G_LAYERS = 16 * (128 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 1) + 1
G_NORMS = 2 * (512 + 256 + 128 + 64)
# Discriminator 1 -> 64 -> 128 -> 256 -> 512 -> 1, with biases; spectral normalisation has buffers,
# no parameters.
D_LAYERS = 16 * (1 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 1) + 64 + 128 + 256 + 512 + 1
# At 16 x 16, where both networks have 128 channels: query and key of 128 // 8, value of 128, and
# the weight of the residual.
ATTENTION = 128 * 16 + 128 * 16 + 128 * 128 + 1


@pytest.fixture
def dry(particles, tmp_path, monkeypatch, capsys):
    """`dry("ngf=4")` -> what a dry run prints; it must leave no file."""
    monkeypatch.chdir(tmp_path)

    def check(*words: str) -> str:
        capsys.readouterr()
        assert cli.guarded(train.main, ["sagan", f"data={particles}", *words, "--dry-run"]) == 0
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().out

    return check


def test_a_dry_run_prints_what_would_be_trained(dry, particles):
    out = dry("--all")
    settings = yaml.safe_load(out[: out.index("run identity")])
    assert (
        settings["batch"] == 16
        and settings["data"] == str(particles)
        and settings["evaluate"]["samples"] == 500
    )
    assert f"parameters of G     {G_LAYERS + G_NORMS + ATTENTION:,}\n" in out and "3,824,514" in out
    assert f"parameters of D     {D_LAYERS + ATTENTION:,}\n" in out and "2,783,170" in out
    assert (
        "breakdown           batch 16 = 1 ranks x 1 micro-batches x 16 per rank, in groups of 16\n"
        in out
    )
    assert (
        "length              2,000 epochs of 54 images = 6,750 steps of 16: 6,750 updates of D,"
        " 6,750 updates of G, 108,000 images seen\n" in out
    )
    assert re.search(r"run identity        [0-9a-f]{8}  \(default-[0-9a-f]{8}\)\n", out)
    # Weights, gradients and two moments of Adam for both, and the average of G, 4 bytes each.
    both, generator = G_LAYERS + G_NORMS + D_LAYERS + 2 * ATTENTION, G_LAYERS + G_NORMS + ATTENTION
    assert (
        f"weights, gradients, optimizer and averages {4 * (4 * both + generator) / 1e6:.1f} MB"
        in out
    )


@pytest.mark.parametrize(
    "words",
    [
        ["ngf=64", "ndf=64"],
        ["ngf=16", "ndf=16"],
        ["ngf=16", "ndf=32", "ema=null", "precision=float64"],
    ],
)
def test_the_size_of_a_checkpoint_is_known_before(dry, particles, tmp_path, words):
    """At least a real one, whose optimizers have taken a step, and at most 8 % more: a bound."""
    import torch

    from distgan.config.loading import validate
    from distgan.recipes._catalog import resolve_recipe
    from distgan.training.setup import TrainingSetup

    told = float(
        re.search(r"^disk .*?: \d+ checkpoints of ([\d.]+) MB", dry(*words), re.MULTILINE)[1]
    )
    module, tree = resolve_recipe("sagan")
    setup = TrainingSetup(
        module, validate(module.Settings, tree, [f"data={particles}", "batch=2", *words])
    )
    for player in setup.recipe.players.values():
        for parameter in player.module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        player.engine.optimizer.step()
    written = checkpoints.save(
        tmp_path / "checkpoints", 1, checkpoints.held(setup.recipe.players), {"samples": 2}
    )
    real = sum(path.stat().st_size for path in written.iterdir()) / 1e6
    shutil.rmtree(tmp_path / "checkpoints")
    assert -0.002 < told / real - 1 < 0.08, (told, real)  # three digits are printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "nowhere"], "has no run folder, run, sweep or job"),
        (["why", "nowhere"], "no run folder"),
        (["logs", "nowhere"], "no run folder"),
        (["cancel", "nowhere"], "no run folder"),
        (["cancel", "4217"], "this job is not the last submission of any run"),
        (["retry", "nowhere"], "no run folder"),
        (["show", "nowhere", "--cmd"], "no run folder"),
        (["sweep", "nowhere.yaml"], "cannot read"),
        (["sweep", "sagan", "data=nowhere", "seed=1,2"], "no shards in nowhere"),
        (["sweep", "nowhere", "--report"], "is named nowhere; there is none"),
        (["submit", "sagan", "data=nowhere"], "no shards in nowhere"),
        (["submit", "sagna", "data=x"], "did you mean sagan"),
    ],
)
def test_wrong_words_are_one_message_and_nothing_is_written(
    words, said, tmp_path, monkeypatch, capsys
):
    from distgan import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    module, _, function = cli.VERBS[words[0]][0].partition(":")
    assert (
        cli.guarded(getattr(__import__(module, fromlist=["main"]), function or "main"), words[1:])
        == 2
    )
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("gpus", "words", "processes", "why"),
    [
        (0, (), 1, "1 process, as there is no GPU"),
        (1, (), 1, "1 process, on the only GPU"),
        (4, (), 4, "4 processes, one per GPU"),
        (4, ("batch=18",), 3, "3 of 4 GPUs, the most that share batch=18 evenly"),
        (4, ("machine.device=cpu",), 1, "1 process, as machine.device=cpu"),
    ],
)
def test_run_takes_all_gpus(gpus, words, processes, why, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert local.choose(["sagan", "data=d", "batch=64", *words]) == (processes, why)
