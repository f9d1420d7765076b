"""One grammar, one form of help and one form of error for every verb; verbs under a launcher."""

import importlib
import subprocess
import sys

import pytest

from distgan import cli
from distgan.core.arguments import (
    MANY,
    Arguments,
    Command,
    Option,
    number,
    one_of,
    several,
    switch,
    whole,
)
from distgan.core.errors import ConfigError, LaunchError, did_you_mean
from distgan.distributed import launch_line
from distgan.recipes._catalog import recipe_names, resolve_recipe

COMMAND = Command(
    "generate",
    "Make files.",
    (
        whole("n", "how many", 1, 1000, default=64, also="count"),
        several("metrics", "which", "fid", "kid", "prdc", default=("fid",)),
        one_of("device", "where", "auto", "cpu", default="auto"),
        Option("out", "where to", "FOLDER", allowed="a folder"),
        whole("per-shard", "samples in one tar", 1),
        switch("dry-run", "only say", short="d"),
        number("range", "limits", 0, 10, metavar="LOW HIGH", count=2),
        Option("set", "a key", "KEY=VALUE", repeat=True),
    ),
    ("RUN", "a run folder"),
    least=1,
    most=1,
    epilog="example: distgan generate RUN",
)
SETTINGS = Command(
    "train",
    "Train.",
    COMMAND.options,
    ("RECIPE key=value …", "a recipe"),
    least=1,
    most=MANY,
    settings=lambda words: None,
)


@pytest.mark.parametrize(
    "words",
    [
        ["--n", "12", "RUN", "--metrics=kid,fid", "--per-shard", "5", "--range", "1", "2"],
        ["RUN", "n=12", "metrics=kid,fid,kid", "per_shard=5", "range=1,2"],
        ["--per_shard=5", "--range=1,2", "count=12", "--metrics", "fid,kid", "--", "RUN"],
        ["per-shard=5", "--count=12", "--metrics", "fid,kid", "--range", "1", "2", "RUN"],
    ],
)
def test_ways_to_write_an_option(words):
    options = COMMAND.parse(words)
    assert options.words == ["RUN"] and (options.n, options.metrics) == (12, ("fid", "kid"))
    assert (options.device, options.out, options.per_shard) == ("auto", None, 5)
    assert options.range == [1.0, 2.0] and options.set == [] and options.dry_run is False


@pytest.mark.parametrize("words", [["--dry-run"], ["-d"], ["dry_run=yes"], ["--dry-run=true"]])
def test_ways_to_write_a_switch(words):
    assert COMMAND.parse(["RUN", *words]).dry_run is True
    assert COMMAND.parse(["RUN", "--dry-run=no"]).dry_run is False


def test_repeated_options_are_a_list():
    assert COMMAND.parse(["RUN", "--set", "a=1", "--set=b=2", "set=c"]).set == ["a=1", "b=2", "c"]


def test_a_path_with_an_equals_sign_is_a_path_and_values_may_hold_one():
    options = COMMAND.parse(["runs/sagan/ngf=8-1a2b", "out=a=b"])
    assert (options.words, options.out) == (["runs/sagan/ngf=8-1a2b"], "a=b")
    assert COMMAND.parse(["--", "ngf=8"]).words == ["ngf=8"]


def test_words_of_a_verb_with_settings_pass_through():
    """But for what names an option.

    A switch is none without dashes, as a section may be called so.
    """
    options = SETTINGS.parse(["sagan", "batch=8", "n=3", "dry-run={}", "x.y=1", "--", "n=4"])
    assert options.words == ["sagan", "batch=8", "dry-run={}", "x.y=1", "n=4"]
    assert options.n == 3 and not options.dry_run


def test_no_setting_has_the_name_of_an_option_with_a_value():
    """Such a setting could not be given as key=value."""
    for verb in ("train", "run", "debug", "submit", "sweep", "doctor", "capacity"):
        command = cli.command_of(verb)
        assert command.settings
        names = {option.key for option in command.options if not option.is_switch}
        for recipe in recipe_names():
            fields = set(resolve_recipe(recipe)[0].Settings.model_fields)
            assert not names & fields, (verb, recipe)


def test_all_faults_at_once():
    words = ["--n", "0", "metrics=fid,fix", "-x", "zz=2", "device=cpu", "--device", "cpu"]
    words += ["--dry-run=perhaps", "--rangee=3", "--range=3", "--out"]
    with pytest.raises(ConfigError) as caught:
        COMMAND.parse(words)
    assert str(caught.value).splitlines() == [
        "distgan generate: 10 errors on the command line:",
        "  -x: no such option",
        "  zz: no such option",
        "  --device: given twice",
        "  --rangee: no such option (did you mean --range?)",
        "  --out: no value, allowed: a folder",
        "  --n: found '0', allowed: 1 to 1,000",
        "  --metrics: found 'fid,fix', allowed: fid, kid, prdc, separated by commas",
        "  --dry-run: found 'perhaps', allowed: yes, no",
        "  --range: found '3', allowed: 0 to 10",
        "  RUN: missing; a run folder",
        "options: --n, --metrics, --device, --out, --per-shard, --dry-run, --range, --set, --help",
        "`distgan generate --help` explains them",
    ]


@pytest.mark.parametrize("word", ["1e3", "-1", "１２", "9" * 30, "", "1.0"])
def test_no_whole_number(word):
    with pytest.raises(ConfigError, match="--n: found '.*', allowed: 1 to 1,000"):
        COMMAND.parse(["RUN", f"n={word}"])


@pytest.mark.parametrize("word", ["nan", "inf", "-1", "", "1,2,3"])
def test_no_number(word):
    with pytest.raises(ConfigError, match="--range: found "):
        COMMAND.parse(["RUN", f"range={word},1"])


def test_names_are_not_abbreviated_and_too_many_words_are_refused():
    with pytest.raises(
        ConfigError, match=r"--dry: no such option(?s:.*)B: one too many, allowed: R"
    ):
        COMMAND.parse(["RUN", "B", "--dry"])


def test_required_options_and_contradictions_are_faults_too():
    command = Command(
        "test",
        "",
        (Option("from", "where from", "FOLDER", dest="folder", required=True),),
        check=lambda options: ["a contradiction"],
    )
    with pytest.raises(
        ConfigError,
        match=r"2 errors on the command line:\n  --from: missing; where from\n  a contra",
    ):
        command.parse([])


def test_a_line_can_be_given_on():
    words = ["RUN", "--n", "3", "--dry-run", "--set", "a=1", "--set", "b=2", "--range", "1", "2"]
    options = COMMAND.parse(words)
    line = ["RUN", "--n=3", "--dry-run", "--set=a=1", "--set=b=2", "--range=1,2"]
    assert options.line() == line and COMMAND.parse(line) == options
    bare = ["RUN", "n=3", "dry-run=yes", "set=a=1", "set=b=2", "range=1,2"]
    assert options.line(dashes="") == bare and vars(COMMAND.parse(bare)).items() >= {"n": 3}.items()
    assert options.line("set", "range") == line[:3]


def test_help_has_one_form(capsys):
    with pytest.raises(SystemExit, match="0"):
        COMMAND.parse(["--nope", "-h"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "usage: distgan generate [OPTIONS] RUN",
        "",
        "Make files.",
        "",
        "arguments:",
    ]
    assert "  --n N                   how many (default: 64)" in lines
    assert (
        "  -d, --dry-run           only say" in lines and "  --set KEY=VALUE         a key" in lines
    )
    assert lines[-1] == "example: distgan generate RUN" and max(map(len, lines)) <= 100


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_tells_all_faults_in_one_form(verb, capsys):
    module, _, function = cli.VERBS[verb][0].partition(":")
    main = getattr(importlib.import_module(module), function or "main")
    assert cli.guarded(main, ["--nope", "a=b", "--n", "x"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[0].startswith(
        f"error: distgan {verb}: {len(error) - 3} errors on the command line:"
    )
    assert error[1].startswith("  --nope: no such option") and all(
        line.startswith("  ") for line in error[1:-2]
    )
    known = any(option.name == "n" for option in cli.command_of(verb).options)
    assert any(
        line.startswith("  --n: found 'x'" if known else "  --n: no such option") for line in error
    )
    assert error[-2].startswith("options: --") and error[-1] == (
        f"`distgan {verb} --help` explains them"
    )
    assert cli.command_of(verb).settings or "  a: no such option" in error


def test_the_nearest_name():
    assert did_you_mean("sagann", ["sagan", "r3gan"]) == " (did you mean sagan?)"
    assert did_you_mean("x", ["sagan"]) == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(shell, capsys):
    assert cli.completion([shell]) == 0
    out = capsys.readouterr().out
    assert all(part in out for part in (*cli.VERBS, "sagan", "particles", "per-shard", "no-page"))


def test_bash_completes_verbs_options_and_recipes(capsys):
    cli.completion(["bash"])
    script = capsys.readouterr().out
    ask = (
        "COMP_WORDS=({}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _distgan; echo ${{COMPREPLY[@]}}"
    )
    lines = [script, *(ask.format(f"distgan {words}") for words in ("sw", "train --dr", "run wg"))]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.stdout.split() == ["sweep", "--dry-run", "wgan_flowers"] and done.stderr == ""


def test_a_verb_becomes_its_launcher(monkeypatch):
    def become(program, line, environment):
        raise SystemExit(" ".join(line))

    def asked(number, **given):
        words = {name: [value] for name, value in given.items()}
        return Arguments(words=["RUN"], given=words, processes=number)

    monkeypatch.setattr(launch_line.os, "execvpe", become)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    launch_line.spread("evaluate", asked(None))
    launch_line.spread("evaluate", asked(1, processes="1"))
    with pytest.raises(
        SystemExit, match="--num_processes 2 -m distgan evaluate RUN n=8 processes=2$"
    ):
        launch_line.spread("evaluate", asked(2, n="8", processes="2"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    launch_line.spread("evaluate", asked(2, processes="2"))
    with pytest.raises(LaunchError, match="processes=3, but the launcher started 2"):
        launch_line.spread("evaluate", asked(3))


def test_the_line_of_a_verb():
    line = launch_line.command(2, ["evaluate", "RUN"], ("-m", "distgan"))
    assert line[0] == sys.executable and line[-6:] == [
        "--num_processes",
        "2",
        "-m",
        "distgan",
        "evaluate",
        "RUN",
    ]
