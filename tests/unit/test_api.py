"""docs/your-own-gan.md: it names all of api, and each of its changes of a template trains alike in
micro-batches.
"""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from distgan import api, train
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks
from distgan.monitor.moves import IN_FLIGHT
from distgan.recipes import _catalog
from distgan.recipes._own_code import unload
from distgan.self_check.inspection import inspect

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-gan.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TINY = ["machine.device=cpu", "machine.folder=run", "width=4", "batch=4", "epochs=0.2"]


def test_the_page_names_all_of_api():
    assert [name for name in api.__all__ if not re.search(rf"\bapi\.{name}\b", PAGE)] == []
    assert [name for name in re.findall(r"\bapi\.(\w+)", PAGE) if name not in api.__all__] == []
    assert [name for name in api.__all__ if not hasattr(api, name)] == []


def test_the_page_names_the_settings_that_move_in_flight():
    assert [name for name in sorted(IN_FLIGHT) if f"`{name}`" not in PAGE] == []


def merged(block: str) -> str:
    """The template with a block of the page put in: definitions replace those of their names."""
    kind = "pair" if block.startswith("# --kind pair") else "image"
    template = Path(_catalog.__file__).parent / "templates" / f"{kind}.py"
    tree = ast.parse(template.read_text())
    _merge(tree.body, ast.parse(block).body)
    return ast.unparse(tree)


def _merge(body: list[ast.stmt], new: list[ast.stmt]) -> None:
    for node in new:
        name = _name(node)
        at = next((i for i, old in enumerate(body) if name and _name(old) == name), None)
        if at is not None and isinstance(node, ast.ClassDef):
            _merge(body[at].body, node.body)
        elif at is not None:
            body[at] = node
        elif isinstance(node, ast.FunctionDef) or isinstance(node, ast.AnnAssign):
            body.append(node)
        else:  # an import, or a class that a function below needs
            body.insert(1, node)
    # Classes need what is imported before them.
    body.sort(key=lambda node: not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr))


def _name(node: ast.stmt) -> str | None:
    if isinstance(node, ast.AnnAssign):
        return getattr(node.target, "id", None)
    return getattr(node, "name", None)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    unload()


@pytest.fixture(scope="module")
def small(shared):
    from shard_sets import shard

    options = ("--n", 24, "--size", 16, "--workers", 1)
    return shared("particles16", lambda to: shard("particles", to, *options))


@pytest.mark.gate
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_each_change_of_a_template_trains_alike_in_micro_batches(number, small, sets):
    Path("mine.py").write_text(merged(BLOCKS[number]))
    data = sets("pulses") if BLOCKS[number].startswith("# --kind pair") else small
    words = [f"data={data}", *TINY]
    module, run, _ = train.plan(["mine.py", *words])
    (given := Data(run.data)).require(run)
    findings = inspect(module, module.code.paths, run, Ranks(run.machine), given)
    assert not findings, "\n".join(map(str, findings))
    words += ["evaluate.samples=8"] if run.scored else []
    assert train.main(["mine.py", *words]) == 0
    assert "results" not in BLOCKS[number] or list(Path("run/results").iterdir())
    assert len(list(Path("run/samples").glob("*.png"))) == 2


def test_images_beside_others_are_those_alone(small):
    """Of the page's own way to sample."""
    block = next(block for block in BLOCKS if "normal_each" in block)
    Path("mine.py").write_text(merged(block))
    module, run, _ = train.plan(["mine.py", f"data={small}", *TINY])
    recipe = module.Recipe(run, Ranks(run.machine), None, (1, 16, 16))
    np.testing.assert_allclose(
        recipe.sample(np.arange(3))[1:], recipe.sample(np.arange(1, 3)), atol=1e-6
    )
