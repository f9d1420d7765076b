"""The inspection of a recipe names cause and line of each fault planted in the template, and finds
none in the template and in the recipes of the package.
"""

import importlib.util
import itertools
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from compare import SYSTEMS
from planted_faults import (
    BAD,
    ERRORS,
    FAKE,
    IMPORTS,
    MADE_D,
    NORM,
    NOTES,
    RANKS,
    REAL,
    RETURN,
    RIGHT,
    STEP,
    after,
    before,
    line,
    own_net,
    swap,
    template,
    text_with,
)

from distgan.config.sections import Machine
from distgan.core.errors import ConfigError
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks
from distgan.self_check.findings import explained, require
from distgan.self_check.inspection import inspect
from distgan.train import plan


@pytest.fixture(autouse=True)
def environment_kept():
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    before = [os.environ.get(name) for name in names]
    yield
    assert [os.environ.get(name) for name in names] == before


SMALL = {"width": 4, "latent": 8, "batch": 4}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def data(particles):
    return Data(str(particles))


@pytest.fixture(scope="module")
def ranks():
    return Ranks(Machine(device="cpu"))


def module_of(path: Path):
    name = f"my_gan_{next(_numbers)}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inspected(path: Path, data: Data, ranks: Ranks, others: tuple[Path, ...] = (), **settings):
    module = module_of(path)
    tree = {"recipe": "my_gan", "data": "given", **SMALL, **settings}
    run = module.Settings.model_validate({k: v for k, v in tree.items() if v is not None})
    if run.label_column is not None:
        data.require(run)
    return inspect(module, {str(path), *map(str, others)}, run, ranks, data)


@pytest.fixture
def planted(tmp_path):
    """A function: edits of the template -> its file and the line that says HERE."""

    def plant(*edits):
        text, path = text_with(*edits), tmp_path / "my_gan.py"
        path.write_text(text)
        return path, text[: text.find("# HERE")].count("\n") + 1

    return plant


# One of each kind; the other ways to write them are left to the nightly tier.
FIRST = {
    "torch.randn",
    "random.random",
    "BatchNorm2d",
    "Dropout",
    "loss * rank",
    ".item()",
    "a buffer of the local batch",
    "an optimizer in the step",
    "G(...) for D",
    "a sum in place of a mean",
    "raises in a loss",
    "nothing returned",
    "a loss of each sample",
    "sample with other parameters",
}


def named(faults):
    cases = [
        pytest.param(fault, id=fault.name, marks=[] if fault.name in FIRST else pytest.mark.nightly)
        for fault in faults
    ]
    return pytest.mark.parametrize("fault", cases)


@named(ERRORS)
def test_a_fault_is_named_with_its_line(fault, planted, data, ranks):
    path, number = planted(*fault.edits)
    found = inspected(path, data, ranks)
    assert [f for f in found if f.level == "error" and f.line == number and fault.said in f.cause]


@named(NOTES)
def test_what_costs_is_told_and_allowed(fault, planted, data, ranks):
    path, number = planted(*fault.edits)
    found = inspected(path, data, ranks)
    assert [(f.level, f.line) for f in found] == [("note", number)] and fault.said in found[0].cause


@named(BAD)
def test_a_bad_recipe_is_one_message_with_its_line(fault, planted, data, ranks):
    path, number = planted(*fault.edits)
    with pytest.raises(ConfigError) as caught:
        require(inspected(path, data, ranks))
    text = str(caught.value)
    assert text.startswith(f"my_gan.py:{number}: ") and fault.said in text and "\n" not in text
    assert (caught.value.__cause__ is not None) == fault.name.startswith("raises")


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("image", "particles"),
        ("pair", "pulses"),
        ("image_pair", "negatives"),
        ("vector", "gaussians"),
        pytest.param("image_conditional", "shapes", marks=pytest.mark.gate),
        pytest.param("vector_conditional", "gaussians", marks=pytest.mark.gate),
    ],
)
def test_the_templates_are_clean(kind, name, precision, sets, ranks, tmp_path):
    (path := tmp_path / "my_gan.py").write_text(template(kind))
    data = Data(str(sets(name)))
    sizes = {"width": 4, "batch": 12, "precision": precision}
    sizes |= {"label": "shape"} if name == "shapes" else {}
    assert inspected(path, data, ranks, latent=None, **sizes) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("return lambda x: ", "return lambda x: x[:, :9]; ", "of shape [1, 9]"),
        ("return lambda x: ", "return lambda x: torch.randn_like(x); ", "draws from torch's"),
    ],
)
def test_a_repairer_that_does_not_repair(old, new, said, pulses, ranks, tmp_path):
    (path := tmp_path / "my_gan.py").write_text(template("pair").replace(old, new))
    (found,) = inspected(path, Data(str(pulses)), ranks, latent=None)
    assert found.level == "error" and found.line >= 67 and said in found.cause


@pytest.mark.gate
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_the_recipes_of_the_package_are_clean(system, sets, ranks):
    module, run, _ = plan([*system.words(), f"data={sets(system.data)}", "machine.device=cpu"])
    assert inspect(module, {module.__file__}, run, ranks, Data(run.data)) == []


@named(RIGHT)
def test_unusual_recipes_are_clean(fault, planted, data, ranks):
    path, _ = planted(*fault.edits)
    assert inspected(path, data, ranks, batch=8) == []


def test_what_is_right_is_not_refused(planted, data, ranks):
    """Ranks that only print, generators of one's own, frozen networks, a buffer of constants."""
    step = """
        if self.ranks.is_main:
            pass
        own = torch.Generator().manual_seed(now.step)
        torch.randn(3, generator=own), np.random.default_rng(now.step).random()
        random.Random(now.step).random()
        api.numpy_generator(self.run.seed, "own", now.step).random()
        self.D.module.seen.fill_(now.epoch)
        with torch.no_grad():
            self.G.module(self.noise(batches[0][0], "x"))
    """
    detached = 'fake = self.G.module(self.noise(micro, "noise/d")).detach()'
    path, _ = planted(IMPORTS, RANKS, *own_net("pass"), before(STEP, step), line(FAKE, detached))
    assert inspected(path, data, ranks) == []


@pytest.mark.gate
def test_a_recipe_of_one_type_of_numbers(planted, data, ranks):
    """It is played in its own precision, where rounding is in the way."""
    typed = after("class Recipe:", "dtype = property(lambda self: torch.float32, lambda *_: None)")
    path, _ = planted(typed)
    assert inspected(path, data, ranks) == []
    path, number = planted(typed, line(RETURN, "return real.relu().sum() - fake.sum(), {}  # HERE"))
    (found,) = inspected(path, data, ranks)
    assert (found.level, found.line) == ("error", number)


@pytest.mark.gate
def test_a_batch_that_cannot_be_shared(planted, data, ranks):
    """The rank is claimed all the same, and a buffer is named where a loss function writes it."""
    path, number = planted(*own_net("self.seen += x.detach().mean()  # HERE"))
    (found,) = inspected(path, data, ranks, batch=3)
    assert found.line == number and "the buffer seen of D" in found.cause
    path, number = planted(RANKS, line(RETURN, "return real.mean() * self.ranks.rank, {}  # HERE"))
    (found,) = inspected(path, data, ranks, batch=1)
    assert found.line == number and "ranks.rank" in found.cause


@pytest.mark.gate
def test_initial_weights_of_generators_that_nothing_seeds(planted, data, ranks):
    draw = "D[0].bias.data.fill_(np.random.rand())  # HERE"
    path, number = planted(IMPORTS, after(MADE_D, draw))
    (found,) = inspected(path, data, ranks)
    assert (found.level, found.line) == ("error", number) and "initial weights" in found.cause
    path, _ = planted(IMPORTS, after(MADE_D, f"np.random.seed(3)\n{draw}"))
    assert inspected(path, data, ranks) == []


def test_a_fault_in_a_file_that_the_recipe_imports(planted, data, ranks, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    helper = tmp_path / "helper_of_my_gan.py"
    helper.write_text("import torch\n\n\ndef noisy(x):\n    return x + torch.randn_like(x)\n")
    path, _ = planted(after(REAL, "import helper_of_my_gan as h\nh.noisy(real)"))
    (found,) = inspected(path, data, ranks, (helper,))
    assert (found.file, found.line) == (str(helper), 5)
    assert str(found).startswith("helper_of_my_gan.py:5: draws from torch's global")


def test_several_faults_are_one_message(planted, data, ranks, capsys):
    path, _ = planted(
        swap(NORM, "nn.BatchNorm2d(before)"),
        before(FAKE, "z = torch.randn(3)"),
        before(RETURN, "score = real.mean().item()"),
    )
    found = inspected(path, data, ranks)
    assert [finding.level for finding in found] == ["error", "error", "note"]
    with pytest.raises(ConfigError, match=r"my_gan\.py:\d+: nn\.Batch.*\nmy_gan\.py:\d+: draws"):
        require(found)
    assert "note: my_gan.py:" in capsys.readouterr().out


def test_a_clean_recipe_pays_four_steps(planted, data, ranks, capsys):
    made = after(MADE_D, "print('made')")
    path, _ = planted(made, before(STEP, "print('step of', len(batches[0][0].real))"))
    assert inspected(path, data, ranks, batch=64) == []
    assert capsys.readouterr().out.split("\n")[:-1] == [
        *("made", "step of 4", "step of 4"),
        *("made", "step of 2", "made", "step of 2"),  # of two micro-batches, loaded in between
    ]


def test_nothing_is_left_behind(planted, data, ranks):
    path, _ = planted(IMPORTS, before(FAKE, "torch.randn(3), random.random()"))
    module_of(path)
    environment, traced = dict(os.environ), sys.gettrace()
    dist, own = vars(torch.distributed).copy(), vars(ranks).copy()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    inspected(path, data, ranks)
    assert states == (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )
    assert (dict(os.environ), sys.gettrace()) == (environment, traced)
    assert (vars(torch.distributed), vars(ranks)) == (dist, own)


def test_an_exception_elsewhere_names_the_recipes_line(planted):
    path, number = planted(before("def generator(", "\ndef late():\n    return [][1]  # HERE\n"))
    module = module_of(path)
    with pytest.raises(ConfigError, match=rf"^my_gan\.py:{number}: IndexError: list index"):
        with explained({str(path)}):
            module.late()
    with pytest.raises(KeyError), explained({str(path)}):
        raise KeyError("not the recipe's")
