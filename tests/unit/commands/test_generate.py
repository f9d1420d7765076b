"""`distgan generate` of vectors: an array and a table, the same rows whatever --n is."""

import json
from pathlib import Path

import numpy as np
import pytest

from distgan import cli, train
from distgan.commands import evaluate, generate, new
from distgan.core.errors import ConfigError, DataError
from distgan.recipes._own_code import unload
from distgan.shards.build.command import main as shard

pytestmark = pytest.mark.gate


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A conditional run of rows of three columns, two of which make the vector."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home := tmp_path_factory.mktemp("vectors"))
        rows = np.random.default_rng(0).normal(size=(60, 2))
        lines = [f"{x},{y},{'cat' if x > 0 else 'dog'}" for x, y in rows.tolist()]
        Path("rows.csv").write_text("\n".join(["height,weight,animal", *lines]))
        words = ["--from", "rows.csv", "--labels", "animal", "--workers", "1"]
        assert shard(["vectors", "data", *words]) == 0
        assert new.main(["mine.py", "--kind", "vector", "--conditional"]) == 0
        words = ["data=data", "batch=9", "width=4", "epochs=0.4", "evaluate.samples=40"]
        words += ["machine.folder=run", "machine.device=cpu", "machine.self_check=false"]
        assert train.main(["mine.py", *words]) == 0
        yield home / "run"
        unload()


@pytest.fixture(autouse=True)
def here(run, monkeypatch):
    monkeypatch.chdir(run.parent)


def table(folder: str) -> list[list[str]]:
    return [line.split(",") for line in Path(folder, "result.csv").read_text().splitlines()]


def test_more_vectors_are_the_same_and_more(capsys):
    assert generate.main(["run", "few", "--n", "5"]) == 0
    assert "distgan evaluate data few/samples.npy" in capsys.readouterr().out
    assert generate.main(["run", "many", "--n", "40"]) == 0
    few, many = np.load("few/samples.npy"), np.load("many/samples.npy")
    assert few.shape == (5, 2) and few.dtype == np.float32 and np.array_equal(few, many[:5])
    assert table("few")[0] == ["id", "class", "critic_score", "height", "weight"]
    assert table("few") == table("many")[:6]
    numbers = np.array([row[2:] for row in table("few")[1:]], np.float32)
    assert np.array_equal(numbers[:, 1:], few) and np.isfinite(numbers).all()
    before = Path("many/samples.npy").read_bytes(), Path("many/result.csv").read_bytes()
    Path("few/samples.npy").write_bytes(b"damaged")
    for line in (["run", "many", "--n", "3"], ["run", "few", "--n", "40"]):  # none gets lost
        assert generate.main(line) == 0
        assert (Path(line[1], "samples.npy").read_bytes()) == before[0]
        assert (Path(line[1], "result.csv").read_bytes()) == before[1]
    assert json.loads(Path("few/generated.json").read_text())["n"] == 40


def test_of_one_class_and_what_is_refused(capsys):
    assert generate.main(["run", "cats", "--n", "6", "--class", "cat"]) == 0
    assert {row[1] for row in table("cats")[1:]} == {"cat"}
    assert "next: distgan evaluate run\n" in capsys.readouterr().out  # not against all classes
    with pytest.raises(ConfigError, match=r"one array; then: distgan shard vectors OUT --from"):
        generate.main(["run", "tars", "--shards", "yes"])
    with pytest.raises(ConfigError, match="draws samples from noise and needs no input"):
        generate.main(["run", "x", "--from", "data"])
    with pytest.raises(ConfigError, match="cats was made otherwise"):
        generate.main(["run", "cats", "--n", "6"])


def test_its_scores_beside_the_floor_and_of_each_class(capsys):
    assert evaluate.main(["run", "--n", "40"]) == 0
    out = capsys.readouterr().out
    for name in ("frechet_vectors", "kernel_vectors", "precision", "coverage", "sliced", "animal"):
        assert name in out
    assert generate.main(["run", "scored", "--n", "40"]) == 0
    for real in ("data", "scored/samples.npy"):
        line = ["--real", real, "--fake", "scored/samples.npy", "--out", "out.json"]
        assert evaluate.main(line) == 0
        score = json.loads(Path("out.json").read_text())["score"]
        assert (score < 1e-6) == real.endswith("npy")
    np.save("three.npy", np.zeros((9, 3)))
    with pytest.raises(ConfigError, match="vectors of 2 numbers, three.npy vectors of 3 numbers"):
        evaluate.main(["--real", "data", "--fake", "three.npy"])
    np.save("three.npy", np.full((9, 2), np.nan))
    with pytest.raises(DataError, match="holds NaN, infinity, or numbers beyond float32"):
        evaluate.main(["--real", "data", "--fake", "three.npy"])
    assert cli.guarded(evaluate.main, ["run", "--inception", "weights.pth"]) == 2
