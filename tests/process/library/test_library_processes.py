"""The library with several processes, started by it or the ranks of a script under torchrun, and in
a notebook.
"""

import sys
from pathlib import Path

import pytest
from processes import environment, journal, line, run

import distgan
from distgan.core.errors import ConfigError, RunError
from distgan.recipes import _catalog

TEMPLATE = (Path(_catalog.__file__).parent / "templates" / "image.py").read_text()
SMALL = {"width": 4, "latent": 4, "batch": 6, "evaluate": {"samples": 12}, "epochs": 1}
WORDS = ["width=4", "latent=4", "batch=6", "evaluate.samples=12", "epochs=1"]
SCRIPT = r"""
import os
import sys
import distgan

{template}

settings = {settings}
named = distgan.train("my_gan.py", data=sys.argv[1], machine={{"folder": "named"}}, **settings)
own = distgan.train(Recipe, data=sys.argv[1], machine={{"folder": "own"}}, **settings)
print(f"scores {{own.evaluate(n=12)['score']}} {{len(own.sample(3))}}\n", end="", flush=True)
try:
    distgan.train("my_gan.py", data=sys.argv[1], batch=7)
except distgan.core.errors.ConfigError as error:
    print("refused", error)
import torch
# One write a line: both ranks print.
print(f"left {{torch.distributed.is_initialized()}}\n", end="", flush=True)
place = {{"rank": int(os.environ["RANK"]), "world_size": 2}}
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], **place)
mine = distgan.train("my_gan.py", data=sys.argv[1], machine={{"folder": "mine"}}, **settings)
print(f"kept {{torch.distributed.is_initialized()}} {{mine.state}}\n", end="", flush=True)
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_gan.py").write_text(TEMPLATE)
    return tmp_path


def test_a_script_of_two_ranks_is_the_command_line(home, particles):
    """Runs and an evaluation in one program, of a named recipe, of a class in the script, and
    within a group that the script has made: the same bits as `torchrun -m distgan.train`.
    """
    script = home / "script.py"
    script.write_text(SCRIPT.format(template=TEMPLATE, settings=SMALL))
    store = str(home / "store")
    said = run(line("torchrun", 2, script), str(particles), store, cwd=home, cold=True)
    assert said.count("finished; next") == 3 and "refused" in said and "scores" in said
    assert said.count("left False") == said.count("kept True done") == 2
    words = ["my_gan.py", f"data={particles}", *WORDS, "machine.folder=typed"]
    run(line("torchrun", 2), *words, cwd=home, cold=True)
    typed = numbers(home / "typed")
    assert typed == numbers(home / "named") == numbers(home / "own") == numbers(home / "mine")


def numbers(folder) -> dict:
    rows = journal(folder)
    return {step: (row["d/loss"], row["g/loss"], row["g/grad_norm"]) for step, row in rows.items()}


def test_processes_are_started_stopped_and_refused_before(home, particles, capsys):
    machine = {"machine": {"folder": "run", "time_limit_s": 1}}
    run = distgan.train("my_gan.py", data=particles, processes=2, **SMALL, **machine)
    assert run.state == "stopped" and "2 ranks" in capsys.readouterr().out
    machine = {"machine": {"folder": "run"}}
    run = distgan.train("my_gan.py", data=particles, processes=2, **SMALL, **machine)
    assert run.state == "done" and "continuing from step" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="processes: this call is evaluated by the processes of"):
        run.evaluate(processes=2)
    with pytest.raises(ConfigError, match="batch"):
        distgan.train("my_gan.py", data=particles, processes=2, **SMALL | {"batch": 7})
    with pytest.raises(RunError, match="machine.device=cuda, but torch sees no CUDA device here"):
        gpu = {"machine": {"device": "cuda"}}
        distgan.train("my_gan.py", data=particles, processes=2, **SMALL, **gpu)


def test_a_class_in_a_notebook_trains_and_goes_on(home, particles):
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    import nbformat

    head, _, body = TEMPLATE.partition("class Settings")
    cells = [
        head + "import distgan",
        "class Settings" + body,
        f"run = distgan.train(Recipe, data={str(particles)!r}, **{SMALL})\nrun.state",
        f"run = distgan.train(Recipe, data={str(particles)!r}, **{SMALL | {'epochs': 1.5}})\n"
        "(run.journal if isinstance(run.journal, list) else run.journal.to_dict('records'))"
        "[-1]['step']",
        "list(run.sample(4).shape), list(run.generator()(torch.zeros(2, 4)).shape)",
        "sorted(path.name for path in (run.folder / 'recipe').iterdir())",
        "try:\n"
        f"    distgan.train(Recipe, data={str(particles)!r}, processes=2)\n"
        "except distgan.core.errors.ConfigError as error:\n    print(error)",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    kernel = nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": home}})
    kernel.execute(env=environment())
    texts = [
        "".join(
            out.get("text", "") + out.get("data", {}).get("text/plain", "") for out in c.outputs
        )
        for c in book.cells
    ]
    assert "'done'" in texts[2] and "continuing from step 9 of 14" in texts[3]
    assert texts[3].endswith("14") and texts[4].endswith("([4, 1, 64, 64], [2, 1, 64, 64])")
    assert "Recipe-" in texts[5] and "save it to a file" in texts[6]
    said = run_verb("evaluate", str(next((home / "runs/Recipe").iterdir())), "--n", "12")
    assert "frechet_standin" in said


def run_verb(*words: str) -> str:
    return run([sys.executable, "-m", "distgan"], *words, cwd=Path.cwd(), cold=True)
