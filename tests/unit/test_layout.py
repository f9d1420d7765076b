"""The shape of the code, kept by machine: names, layers, sizes. docs/architecture.md says why."""

import ast
import importlib.metadata
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path for folder in ("distgan", "launchers", "shards") for path in (ROOT / folder).rglob("*.py")
)
# A file imports only from lines above its own.
LAYERS = [
    {"distgan", "distgan.errors", "distgan.watchdog"},
    {"distgan.console", "distgan.draws", "distgan.clock", "distgan.options"},
    {"shards"},
    {"distgan.journal", "distgan.thresholds"},
    {"distgan.progress"},
    {"distgan.rules"},
    {
        "distgan.watch",
        "distgan.criteria",
        "distgan.sharing",
        "distgan.signals",
        "distgan.losses",
        "distgan.pictures",
        "distgan.figures",
        "distgan.interventions",
        "distgan.tuning",
    },
    {
        "distgan.config",
        "distgan.augment",
        "distgan.measures",
        "distgan.metrics",
        "distgan.resizing",
        "distgan.perceptual",
        "distgan.embeddings",
    },
    {"distgan.runfile", "distgan.launched"},
    {"distgan.runs", "distgan.history"},
    {"distgan.memory"},
    {"distgan.ranks"},
    {
        "distgan.order",
        "distgan.data",
        "distgan.recorder",
        "distgan.stopping",
        "distgan.audio_scores",
    },
    {
        "distgan.normalization",
        "distgan.batches",
        "distgan.features",
        "distgan.reals",
        "distgan.scores",
    },
    {"distgan.imagesets", "distgan.clips"},
    {"distgan.engines"},
    {"distgan.zero"},
    {"distgan.nets_image", "distgan.nets_audio", "distgan.player", "distgan.listening"},
    {"distgan.evaluator", "distgan.nets_timbre"},
    {"distgan.from_noise", "distgan.results"},
    {"distgan.recipes"},
    {"distgan.checkpoints", "distgan.doctor"},
    {"distgan.checks", "distgan.grow"},
    {"distgan.mishaps", "distgan.trained", "distgan.generated", "distgan.evaluate_audio"},
    {"distgan.loop"},
    {"distgan.start"},
    {"distgan.train", "distgan.plots", "distgan.markup", "distgan.generate", "distgan.evaluate"},
    {"distgan.exhibits", "distgan.scoreboard", "distgan.soundboard"},
    {"distgan.page"},
    {"distgan.report"},
    {"distgan.cli"},
    {"distgan.__main__"},
    {"launchers"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Recipes use players, not the loop; `train` and `cli` hand over to each other at run time only.
LARGEST = {"distgan/train.py": 60, "distgan/loop.py": 260}
USUAL = 290


def place(module: str) -> str:
    """`distgan.recipes.sagan` -> `distgan.recipes`; `shards.index` -> `shards`."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "distgan" and len(parts) > 1 else parts[0]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path, top_only: bool = False):
    """Names of modules that a file imports; with `top_only`, only those at its top level."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (
                (f"{node.module}.{alias.name}" for alias in node.names)
                if node.module in ("distgan", "shards", "launchers")
                else [node.module]
            )


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_name_hides_another_module(path):
    """`accelerate launch distgan/train.py` puts distgan/ on the path of modules."""
    if path.stem not in ("__init__", "__main__"):
        taken = sys.stdlib_module_names | set(importlib.metadata.packages_distributions()) - {
            "distgan",
            "shards",
            "launchers",
        }
        assert path.stem not in taken


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_one_way(path):
    mine = place(module_of(path))
    for name in imports(path, top_only=True):
        theirs = place(name)
        if (
            theirs.split(".")[0] in ("distgan", "shards", "launchers")
            and theirs != mine
            and theirs in LEVEL
        ):
            assert LEVEL[theirs] < LEVEL[mine], f"{mine} must not import {theirs}"


def test_every_file_has_a_place():
    assert {place(module_of(path)) for path in FILES} <= set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_ranks_knows_processes(path):
    known = {"ranks.py": ("accelerate", "torch.distributed"), "zero.py": ("deepspeed",)}.get(
        path.name, ()
    )
    engines = [
        name
        for name in imports(path)
        if name.startswith(("accelerate", "deepspeed", "torch.distributed"))
    ]
    assert all(name.startswith(known) for name in engines)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_stay_small(path):
    lines = len(path.read_text().splitlines())
    assert lines <= LARGEST.get(str(path.relative_to(ROOT)), USUAL)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "distgan/recipes").glob("[a-z]*.py")), ids=module_of
)
def test_a_step_fits_on_one_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name in ("step", "_d_loss", "_g_loss"):
            assert node.end_lineno - node.lineno < 45


@pytest.mark.parametrize(
    "name",
    [
        "config",
        "runfile",
        "launched",
        "tuning",
        "sharing",
        "watch",
        "journal",
        "thresholds",
        "progress",
        "rules",
        "criteria",
        "runs",
        "history",
        "report",
        "page",
        "plots",
        "figures",
        "interventions",
        "markup",
        "exhibits",
        "clock",
        "console",
        "draws",
        "options",
        "scoreboard",
        "soundboard",
        "evaluate",
        "evaluate_audio",
        "generate",
    ],
)
def test_a_login_node_needs_no_torch(name):
    """What plans, checks and reports runs imports no torch at its top."""
    assert "torch" not in [
        module.split(".")[0] for module in imports(ROOT / "distgan" / f"{name}.py", top_only=True)
    ]


def test_few_files():
    # 110 at first; 13 of the evaluator and its metrics, 6 of sound's and of what is generated, 4 of
    # what goes wrong, 27 of Slurm (11 of them verbs); 5 to spare
    assert len(FILES) <= 165
