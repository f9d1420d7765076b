"""`distgan.train`, `load` and `TrainedRun`: a run is that of the command line, in the main thread
or in another, once or again; errors are exceptions, and nothing is left behind.
"""

import csv
import importlib
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import distgan
from distgan.commands import generate
from distgan.core.errors import ConfigError, DataError, RunError
from distgan.distributed import process_group
from distgan.recipes import _catalog, _own_code
from distgan.recipes._own_code import load, modules, unload
from distgan.runs import class_source, data_code, recipe_code
from distgan.runs.checkpoints import newest

TEMPLATE = (Path(_catalog.__file__).parent / "templates" / "image.py").read_text()
SMALL = {"width": 4, "latent": 4, "batch": 6, "machine": {"device": "cpu", "self_check": False}}
WORDS = ["width=4", "latent=4", "batch=6", "machine.device=cpu", "evaluate.samples=12"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    unload()
    for name in ("nets", "parts"):
        sys.modules.pop(name, None)


@pytest.fixture
def run(trained):
    return distgan.TrainedRun(trained[0] / "run")


def test_names_are_loaded_when_they_are_used():
    code = "import distgan, sys; assert 'torch' not in sys.modules; print(dir(distgan))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"'{name}'" in done.stdout for name in ("train", "load", "TrainedRun", "Loader"))
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        _ = distgan.tarin
    assert importlib.import_module("distgan.train") is distgan.train and callable(distgan.train)


def test_a_run_is_that_of_the_command_line(particles, capsys):
    """Settings as keywords make the same folder, and each continues the other's."""
    Path("my_gan.py").write_text(TEMPLATE)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    run = distgan.train("my_gan.py", data=particles, epochs=0.5, evaluate={"samples": 12}, **SMALL)
    assert run.state == "done" and run.folder.parent == Path("runs/my_gan")
    assert handlers == {number: signal.getsignal(number) for number in handlers}
    assert distgan.train.main(["my_gan.py", f"data={particles}", "epochs=1", *WORDS]) == 0
    assert [path.name for path in Path("runs/my_gan").iterdir()] == [run.folder.name]
    again = distgan.train(
        Path("my_gan.py"), data=str(particles), epochs=1.5, evaluate={"samples": 12}, **SMALL
    )
    assert again.folder == run.folder and newest(run.folder / "checkpoints")[1]["step"] == 14
    assert run.settings["epochs"] == 1.5
    assert "continuing from step 9 of 14" in capsys.readouterr().out


PHOTOS = """
import numpy as np

class Photos:
    fingerprint = "v1"
    def __len__(self):
        return 30
    def __getitem__(self, i):
        return np.full((1, 16, 16), 8 * i, np.uint8)
"""


def test_a_dataset_of_ones_own_is_that_which_the_command_line_names(capsys):
    Path("my_gan.py").write_text(TEMPLATE)
    Path("photos.py").write_text(PHOTOS)
    photos = data_code.load("photos.py:Photos")
    run = distgan.train("my_gan.py", data=photos, epochs=0.5, evaluate={"samples": 12}, **SMALL)
    assert run.evaluate(n=12)["score"] > 0
    assert distgan.train.main(["my_gan.py", "data=photos.py:Photos", "epochs=1", *WORDS]) == 0
    assert [path.name for path in Path("runs/my_gan").iterdir()] == [run.folder.name]
    assert "continuing from step 3 of 5" in capsys.readouterr().out


def test_in_a_thread_and_errors_are_exceptions(particles):
    results: list = []

    def work():
        Path("my_gan.py").write_text(TEMPLATE)
        results.append(
            distgan.train(
                "my_gan.py", data=particles, epochs=0.2, evaluate={"samples": 12}, **SMALL
            )
        )
        for wrong in ({"data": particles, "bathc": 3}, {"data": "nowhere"}):
            try:
                distgan.train("my_gan.py", **wrong)
            except (ConfigError, DataError) as error:
                results.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    run, unknown, missing = results
    assert run.state == "done" and "did you mean batch?" in unknown and "no shards" in missing


def test_samples_and_networks(run, trained):
    """Sample i is image i of `distgan generate`; the network is a plain module of averages."""
    assert generate.main([str(run.folder), "out", "--n", "20"]) == 0
    images = run.sample(20)
    assert images.dtype == torch.uint8 and images.shape == (20, 1, 64, 64)
    with open("out/result.csv") as file:
        names = [row["file_name"] for row in csv.DictReader(file)]
    files = [np.asarray(Image.open(Path("out") / name)) for name in names]
    assert np.array_equal(np.stack(files), images[:, 0].numpy())
    net = run.generator()
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    copy = pickle.loads(pickle.dumps(net))  # noqa: S301
    assert torch.equal(copy(torch.ones(2, 8)), net(torch.ones(2, 8)))
    last = distgan.load(f"{run.folder}@last", player="D")
    assert isinstance(last, torch.nn.Module) and net is not run.generator()
    with pytest.raises(ConfigError, match="'X': this run has D, G|'X': this run has G, D"):
        run.generator("X")
    with pytest.raises(ConfigError, match="classes=a: the networks of this run are given no"):
        run.sample(2, classes="a")


def test_numbers_scores_and_page(run, monkeypatch):
    rows = run.journal
    assert rows[0]["step"] == 0 or "d/loss" in rows[-1]
    monkeypatch.setitem(sys.modules, "pandas", type(sys)("pandas"))
    sys.modules["pandas"].DataFrame = lambda rows: ("frame", len(rows))
    assert run.journal == ("frame", len(rows))
    assert run.best["metric"] == "frechet_standin" and run.state == "done"
    scores = run.evaluate(n=24, metrics=("frechet", "kernel"))
    assert scores["samples"] == 24 and scores["score"] > 0
    assert list(run.folder.glob("eval/asked/*.json"))
    assert "</html>" in run.report().read_text()
    for text, wrong in ((f"{run.folder}@7", "no checkpoint of step 7"), ("x", "no run folder")):
        with pytest.raises((ConfigError, RunError), match=wrong):
            distgan.TrainedRun(text).sample(1)


def test_what_the_caller_has_set_in_torch_changes_nothing(particles):
    """And is as it was after a run, after one that fails, and after sampling."""
    Path("my_gan.py").write_text(TEMPLATE)
    before = process_group.existing()

    def train(seed: int, folder: str) -> distgan.TrainedRun:
        machine = {**SMALL["machine"], "folder": folder}
        settings = {"epochs": 0.2, "evaluate": {"samples": 12}, "seed": seed}
        return distgan.train("my_gan.py", data=particles, **SMALL | settings | {"machine": machine})

    plain = train(0, "plain")
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            other = train(0, "other")
            images = other.sample(4)
            with pytest.raises(DataError, match="no shards"):
                distgan.train("my_gan.py", data="nowhere")
            assert torch.is_autocast_enabled("cpu") and not torch.is_grad_enabled()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(images, plain.sample(4))
    losses = [[row["d/loss"] for row in run.journal if "d/loss" in row] for run in (plain, other)]
    assert losses[0] == losses[1] and len(losses[0]) == 2
    assert process_group.existing() == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": np.array([1, 2])}, r"epochs: found \[1, 2\]"),
        ({"machine": {1: 2}}, "machine.1 is no name of a setting"),
        ({"epochs": object}, "is a type, and no setting has such a value"),
        ({"processes": 0}, "processes=0: allowed is a whole number from 1"),
        ({"processes": "2"}, "processes='2': allowed is a whole number from 1"),
    ],
)
def test_a_setting_that_is_none_is_one_message(particles, settings, words):
    with pytest.raises(ConfigError, match=words):
        distgan.train("sagan", data=particles, **settings)


def test_what_needs_other_processes_is_refused_before_it_starts(particles, monkeypatch):
    class Recipe:
        step = None.__class__

    with pytest.raises(ConfigError, match="within a function or a class; define it at the top"):
        distgan.train(Recipe, data=particles)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(distgan.core.errors.LaunchError, match="processes=3, but the launcher"):
        distgan.train("sagan", data=particles, processes=3)


NETS = """
import numpy as np
from distgan import api

class Pts:
    pass

class Other:
    class Settings(api.Run):
        kind = "vector"

    def step(self, batches, now):
        import parts
        from parts import WIDTH
        return WIDTH, parts, np
"""


def test_the_programs_modules_stay_its_own(tmp_path, monkeypatch):
    """A class of a module is imported from the copy's sources; `sys.modules` keeps the program's,
    whatever is loaded, and imports within the recipe's functions find the recipe's.
    """
    Path("nets.py").write_text(NETS)
    Path("parts.py").write_text("WIDTH = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    nets = importlib.import_module("nets")
    code = class_source.of_class(nets.Other)
    copy = recipe_code.from_copy(code.copy_to(tmp_path / "copies"))
    Path("parts.py").write_text("WIDTH = 44\n")
    parts = importlib.import_module("parts")
    for each in (code, copy, code):
        recipe = load(each)[1]
        assert recipe is not nets.Other and sys.modules["nets"] is nets
        assert isinstance(pickle.loads(pickle.dumps(nets.Pts())), nets.Pts)  # noqa: S301
        width, own, _ = recipe.step(None, None, None)
        assert width == 3 and own is not parts and sys.modules["parts"] is parts
        assert importlib.reload(parts).WIDTH == 44
        assert recipe.__module__ in [each.__name__ for each in modules()[:3]]
    unload()
    assert sys.modules["nets"] is nets and sys.modules["parts"] is parts


def test_a_recipes_modules_are_not_the_programs(tmp_path, monkeypatch):
    """Also where the program has not imported its own yet; and a recipe that was loaded before
    still finds its own.
    """
    codes = []
    for name, width in (("one", 3), ("two", 5)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "nets.py").write_text(NETS)
        (folder / "parts.py").write_text(f"WIDTH = {width}\n")
        codes.append(recipe_code.collect(folder / "nets.py", "Other", "nets:Other"))
    before = set(sys.modules)
    with _own_code.in_a_program():
        recipes = [load(code)[1] for code in codes]
    assert not {"nets", "parts"} & (set(sys.modules) - before)
    assert [recipe.step(None, None, None)[0] for recipe in recipes] == [3, 5]
    Path("parts.py").write_text("WIDTH = 44\n")
    monkeypatch.syspath_prepend(Path.cwd())
    assert importlib.import_module("parts").WIDTH == 44
    assert recipes[0].step(None, None, None)[0] == 3


def test_a_class_is_known_by_the_file_that_defined_it(tmp_path, monkeypatch):
    Path("nets.py").write_text(NETS)
    Path("parts.py").write_text("WIDTH = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    nets = importlib.import_module("nets")
    before = class_source.of_class(nets.Other)
    stranger = type(sys)("nets")
    stranger.__file__ = str(tmp_path / "copy.zip" / "nets.py")
    monkeypatch.setitem(sys.modules, "nets", stranger)
    assert class_source.of_class(nets.Other) == before


def test_the_name_of_a_class_is_that_of_a_folder_of_runs(particles, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", type(sys)("__main__"))
    sys.modules["__main__"].__file__ = str(tmp_path / "script.py")
    for name, wrong in (("sagan", "distgan's own recipe sagan; rename"), ("Größe", "allowed are")):
        Path("script.py").write_text(NETS.replace("Other", name))
        Path("parts.py").write_text("WIDTH = 3\n")
        recipe = type(name, (), {"__module__": "__main__", "step": print, "Settings": int})
        with pytest.raises(ConfigError, match=rf"script.py:{name} .*{wrong}"):
            distgan.train(recipe, data=particles)
    assert not Path("runs").exists()


def test_a_thread_waits_for_the_import_of_another(tmp_path):
    Path("my_gan.py").write_text(
        f"import sys\n{TEMPLATE}\nsys.wait = sys.another()\nsys.wait.join(0.3)\n"
    )
    code, found = recipe_code.collect(tmp_path / "my_gan.py", "Recipe", "my_gan"), []

    def another():
        thread = threading.Thread(target=lambda: found.append(load(code)))
        thread.start()
        return thread

    sys.another = another
    first = load(code)
    sys.wait.join()
    assert found == [first]
    del sys.another, sys.wait


def test_a_name_that_is_not_kept_is_explained(particles, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", type(sys)("__main__"))
    sys.modules["__main__"].__file__ = str(tmp_path / "script.py")
    Path("script.py").write_text("exec('Base = object')\nclass Gan(Base):\n    pass\n")
    recipe = type("Gan", (), {"__module__": "__main__", "step": print})
    with pytest.raises(ConfigError, match=r"script.py:2: NameError: .*not kept \(docs/library.md"):
        distgan.train(recipe, data=particles)


def test_training_while_the_recipe_is_imported_is_one_sentence(particles):
    Path("my_gan.py").write_text(
        f"import distgan\n{TEMPLATE}\ndistgan.train(Recipe, data={str(particles)!r})\n"
    )
    with pytest.raises(ConfigError, match="my_gan.py: its import trains a run; put that under"):
        distgan.train("my_gan.py", data=particles)
