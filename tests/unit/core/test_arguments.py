"""One parser for verbs that look at trained runs; verbs under a launcher."""

import sys

import pytest

from distgan.core import arguments as options
from distgan.core.errors import ConfigError, LaunchError
from distgan.distributed import launch_line
from distgan.launchers.local import run as local

KNOWN = {
    "n": options.whole(64, 1, 1000),
    "metrics": options.several(("fid",), "fid", "kid", "prdc"),
    "device": options.one_of("auto", "auto", "cpu"),
    "out": options.Option(None, "a folder"),
    "processes": options.processes(),
}


@pytest.mark.parametrize(
    "words",
    [
        ["--n", "12", "RUN", "--metrics=kid,fid"],
        ["RUN", "n=12", "metrics=kid,fid,kid"],
        ["RUN", "count=12", "--metrics", "fid,kid"],
    ],
)
def test_three_ways_to_write_an_option(words):
    places, found = options.parse("generate", words, KNOWN, (1, 1), {"count": "n"})
    assert places == ["RUN"]
    assert found == {
        "n": 12,
        "metrics": ("fid", "kid"),
        "device": "auto",
        "out": None,
        "processes": None,
    }


def test_a_path_with_an_equals_sign_is_a_path():
    assert options.parse("generate", ["runs/sagan/ngf=8-1a2b", "out=a=b"], KNOWN, (1, 1)) == (
        ["runs/sagan/ngf=8-1a2b"],
        {name: option.default for name, option in KNOWN.items()} | {"out": "a=b"},
    )


def test_all_faults_at_once():
    with pytest.raises(ConfigError) as caught:
        options.parse(
            "generate",
            ["--n", "0", "metrics=fid,fix", "-x", "nn=2", "device=cpu", "--device", "cpu", "--out"],
            KNOWN,
            (1, 1),
        )
    assert str(caught.value).splitlines()[1:] == [
        "  n: found '0', allowed: 1 to 1,000",
        "  metrics: found 'fid,fix', allowed: fid, kid, prdc, separated by commas",
        "  '-x' is no option; there are n, metrics, device, out, processes",
        "  'nn=2' is none of n, metrics, device, out, processes",
        "  device: given twice",
        "  out: no value; allowed: a folder",
        "  found 0 words that are no options (), expected 1",
    ]


@pytest.mark.parametrize("word", ["1e3", "-1", "１２", "9" * 30, ""])
def test_no_whole_number(word):
    with pytest.raises(ConfigError, match="allowed: 1 to 1,000"):
        options.parse("generate", [f"n={word}"], KNOWN, (0, 0))


def test_a_verb_becomes_its_launcher(monkeypatch):
    def become(program, line, environment):
        raise SystemExit(" ".join(line))

    monkeypatch.setattr(local.os, "execvpe", become)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    launch_line.spread("evaluate", ["RUN"], None)
    launch_line.spread("evaluate", ["RUN", "processes=1"], 1)
    with pytest.raises(SystemExit, match="--num_processes 2 -m distgan evaluate RUN processes=2$"):
        launch_line.spread("evaluate", ["RUN", "processes=2"], 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    launch_line.spread("evaluate", ["RUN", "processes=2"], 2)
    with pytest.raises(LaunchError, match="processes=3, but the launcher started 2"):
        launch_line.spread("evaluate", ["RUN"], 3)


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
