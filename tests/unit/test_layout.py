"""The shape of the code: layers, circles, sizes, names. Each test lists all offenders at once."""

import importlib.metadata
import re
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import layout
import pytest
from layout_debts import DEBTS

ROOT = Path(__file__).parents[2]

# From the ground up: a file imports from its own line and from those before it.
LAYERS = """
distgan
distgan.core
distgan.monitor
distgan.config
distgan.shards
distgan.shards.codecs
distgan.shards.format
distgan.shards.audio
distgan.shards.sources
distgan.shards.build
distgan.shards.audit
distgan.shards.adopt
distgan.runs
distgan.distributed
distgan.data
distgan.metrics
distgan.nn
distgan.engine
distgan.evaluation.sets
distgan.evaluation
distgan.outputs
distgan.recipes
distgan.api
distgan.report
distgan.self_check
distgan.training
distgan.train
distgan.commands
distgan.launchers.slurm
distgan.launchers.executors
distgan.launchers.runs
distgan.launchers
distgan.launchers.local
distgan.launchers.commands
distgan.launchers.capacity
distgan.launchers.sweeps
distgan.library
distgan.cli
distgan.__main__
""".split()

# Within a function, and only these, an import may go up.
LAZY_UPWARDS = {
    ("distgan.train", "distgan.cli"),  # started as a script, `train.py` is `distgan train`
    ("distgan", "distgan.data.epochs"),  # names of the library, when they are first used
    ("distgan", "distgan.library"),
    ("distgan.train", "distgan.library"),  # the module can be called
}

# The packages that a login node uses: no import of them loads torch.
WITHOUT_TORCH = [
    "distgan.core",
    "distgan.monitor",
    "distgan.config",
    "distgan.report",
    "distgan.launchers",
    "distgan.cli",
    "distgan.distributed.environment",
    "distgan.runs.folder",
    "distgan.runs.history",
    "distgan.commands.evaluate",
    "distgan.commands._evaluate_audio",
    "distgan.commands.report",
    "distgan.shards.adopt",
    "distgan.shards.audit",
    "distgan.shards.build",
    "distgan.shards.codecs",
    "distgan.shards.format",
]


@pytest.fixture(scope="module")
def tree():
    return layout.Tree(ROOT, "distgan")


def offenders(rule: str, found: list[str]) -> str:
    """All that break a rule and are no known debt, one line each."""
    known = DEBTS.get(rule, ())
    return "\n".join(line for line in found if line.split()[0].rstrip(":") not in known)


def test_imports_go_down(tree):
    assert not offenders("imports", layout.upward_imports(tree, LAYERS, LAZY_UPWARDS))


def test_no_circles(tree):
    assert not offenders("files", layout.circles(tree))
    assert not offenders("packages", layout.circles(tree, of_packages=True))


def test_one_package_knows_processes_and_one_file_deepspeed(tree):
    found = [
        *layout.importers(tree, "torch.distributed", ["distgan.distributed"]),
        *layout.importers(tree, "accelerate", ["distgan.distributed"]),
        *layout.importers(tree, "deepspeed", ["distgan.engine.deepspeed_zero"]),
    ]
    assert not offenders("processes", found)


def test_a_login_node_needs_no_torch(tree):
    assert not offenders("torch", layout.reaches(tree, WITHOUT_TORCH, "torch"))


def test_no_mock_in_the_product(tree):
    assert not offenders("mock", layout.importers(tree, "unittest", []))


def test_folders_files_and_functions_are_small(tree):
    tops = [ROOT / name for name in ("distgan", "launchers", "shards", "tests")]
    assert not offenders("folder", layout.full_folders(tops, most=12))
    assert not offenders("file", layout.long_files(tree, most=400))
    assert not offenders("function", layout.long_functions(tree, most=60))


def test_a_step_fits_on_one_screen(tree):
    found = layout.long_functions(tree, most=45, names=re.compile(r"(step|_d_loss|_g_loss)$"))
    assert not offenders("step", found)


def test_lines_are_at_most_100_columns():
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    on = "E501" in ruff["lint"]["select"] and "E501" not in ruff["lint"].get("ignore", ())
    assert ruff["line-length"] == 100 and on


def test_no_name_hides_another_module():
    """`accelerate launch distgan/train.py` puts distgan/ on the path of modules."""
    owners = importlib.metadata.packages_distributions()
    installed = {name for name, packages in owners.items() if set(packages) != {"distgan"}}
    found = layout.hiding_names(ROOT / "distgan", sys.stdlib_module_names | installed)
    assert not offenders("names", found)


def test_a_package_file_says_what_the_package_holds(tree):
    exempt = {"distgan"}  # holds the version
    assert not offenders("packages' docs", layout.init_files(tree, exempt))


def test_docstrings_are_statements(tree):
    assert not offenders("docstrings", layout.noun_clauses(tree))


def test_tests_named_in_their_readme_exist():
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "tests" / "README.md").read_text())
    missing = [
        f"{path}::{name}"
        for path, name in named
        if f"def {name}(" not in (ROOT / "tests" / path).read_text()
    ]
    assert named and not missing


# ---- the checks themselves, on small invented trees
def invented(root: Path, files: dict[str, str]) -> layout.Tree:
    """A package `p` with these files; package files are made up."""
    for name, text in files.items():
        path = root / "p" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in {path.parent for path in (root / "p").rglob("*.py")} | {root / "p"}:
        if not (folder / "__init__.py").exists():
            inside = [path.stem for path in folder.iterdir()]
            (folder / "__init__.py").write_text(f'"""Hold {", ".join(inside)}."""\n')
    return layout.Tree(root, "p")


ORDER = ["p", "p.low", "p.high"]


def test_an_import_turned_round_is_found(tmp_path):
    good = invented(tmp_path / "a", {"low/a": "", "high/b": "from p.low import a\nimport p.low.a"})
    assert not layout.upward_imports(good, ORDER) and not layout.circles(good, of_packages=True)
    for text in (
        "import p.high.b",
        "from p.high import b",
        "from p.high.b import x",
        "if 1:\n import p.high.b",
    ):
        bad = invented(tmp_path / re.sub(r"\W", "", text), {"low/a": text, "high/b": ""})
        assert layout.upward_imports(bad, ORDER) == ["p.low.a imports p.high.b"]
    both = invented(tmp_path / "c", {"low/a": "import p.high.b", "high/b": "import p.low.a"})
    assert layout.circles(both) == ["p.high.b <-> p.low.a"]
    assert layout.circles(both, of_packages=True) == ["p.high <-> p.low"]
    other = invented(tmp_path / "d", {"low/a": "from .c import x", "low/c": "", "new/e": ""})
    assert layout.upward_imports(other, ORDER) == [
        "p.low.a has a relative import",
        "p.new is in no layer",
        "p.new.e is in no layer",
    ]


def test_a_lazy_import_upwards_must_be_named(tmp_path):
    lazy = "def f():\n    try:\n        pass\n    except E:\n        from p.high import b"
    bad = invented(tmp_path, {"low/a": lazy, "high/b": ""})
    assert layout.upward_imports(bad, ORDER) == ["p.low.a lazily imports p.high.b"]
    assert not layout.upward_imports(bad, ORDER, {("p.low.a", "p.high.b")})
    assert not layout.circles(bad)
    assert layout.upward_imports(bad, ORDER, {("p.low.a", "p.high.b"), ("p.high.b", "p.low")}) == [
        "p.high.b need not be allowed p.low"
    ]


def test_an_import_of_torch_is_found_however_far_down(tmp_path):
    seen = invented(
        tmp_path,
        {
            "low/a": "import torch.nn",
            "low/c": "def f():\n  import torch",
            "high/b": "import p.low.a",
        },
    )
    assert layout.reaches(seen, ["p.high"], "torch") == ["p.high.b imports torch through p.low.a"]
    assert layout.reaches(seen, ["p.low"], "torch") == ["p.low.a imports torch"]
    assert layout.importers(seen, "torch", ["p.low.a"]) == ["p.low.c imports torch"]
    used = invented(tmp_path / "u", {"low/a": "import torch\nx = torch.distributed.y"})
    assert layout.importers(used, "torch.distributed", []) == ["p.low.a uses torch.distributed"]


def test_a_file_a_function_and_a_folder_that_grow_are_found(tmp_path):
    long = "def step():\n" + "    x\n" * 5
    made = invented(tmp_path, {"low/a": long, "low/b": "x\n" * 6, "low/c": ""})
    assert layout.long_files(made, 6) == [] and layout.long_functions(made, 6) == []
    assert layout.long_files(made, 5) == ["p.low.a has 6 lines", "p.low.b has 6 lines"]
    assert layout.long_functions(made, 5) == ["p.low.a.step has 6 lines"]
    assert layout.long_functions(made, 5, re.compile("other")) == []
    assert layout.full_folders([tmp_path], 3) == ["low has 4 files"]


def test_a_name_that_hides_a_module_is_found(tmp_path):
    invented(tmp_path, {"json/a": "", "random": "", "mine": ""})
    assert layout.hiding_names(tmp_path / "p", sys.stdlib_module_names) == [
        "p/json hides json",
        "p/random hides random",
    ]


def test_docs_that_say_too_little_are_found(tmp_path):
    made = invented(
        tmp_path,
        {
            "low/a": '"""What a is."""\ndef f():\n    """Whether so."""\nclass C:\n    """Tell."""',
            "low/__init__": '"""Low."""\nx = 1',
        },
    )
    assert layout.noun_clauses(made) == ["p.low.a.f: Whether …", "p.low.a: What …"]
    assert layout.init_files(made) == ["p.low does not name a", "p.low holds more than a docstring"]
    assert not layout.init_files(made, {"p.low"})


def test_no_two_test_files_have_one_name():
    """They are modules without packages: pytest would refuse the second."""
    names = sorted(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert not [name for name, after in pairwise(names) if name == after]
