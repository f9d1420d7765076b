"""The source of a recipe that is given as a class: the class of a script or notebook and what it
uses, and nothing that would train again.
"""

import importlib.machinery
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest

from distgan.core.errors import ConfigError
from distgan.runs.class_source import of_class

SCRIPT = '''"""A script."""
from __future__ import annotations
import os
import torch
from torch import nn, optim as opt

SIZE = 3
OTHER = open("/dev/null")
SIZE = SIZE + 1
try:
    import numpy as np
except ImportError:
    np = None

def helper(x):
    return width(x) * SIZE

def width(x):
    return np.sqrt(x)

def unused():
    return OTHER

class Base(nn.Module):
    pass

@torch.no_grad
class MyGAN(Base):
    class Settings:
        pass
    def step(self, unused):
        os = 3
        return helper(opt)

print("trains")
if __name__ == "__main__":
    width = 3
'''


@pytest.fixture
def main(monkeypatch):
    """A module that stands for `__main__`."""
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def made(name="MyGAN", module="__main__", **attributes):
    about = {"__module__": module, "__qualname__": name, "step": print}
    return type(name, (), {**about, **attributes})


def test_a_scripts_lines_stay_in_place(main, tmp_path):
    main.__file__ = str(tmp_path / "script.py")
    (tmp_path / "script.py").write_text(SCRIPT)
    code = of_class(made(Settings=object))
    assert (code.name, code.module, code.attribute) == ("MyGAN", "script", "MyGAN")
    lines = code.files["script.py"].decode().splitlines()
    before = SCRIPT.splitlines()
    kept = {line for line, now in zip(before, lines, strict=False) if now and line == now}
    assert len([line for line in lines if line]) == len([line for line in before if line in kept])
    assert {"import torch", "SIZE = 3", "SIZE = SIZE + 1", "@torch.no_grad"} <= kept
    assert "from __future__ import annotations" in kept and "    import numpy as np" in kept
    for gone in ("import os", 'OTHER = open("/dev/null")', "def unused():", 'print("trains")'):
        assert gone in before and gone not in lines


def test_what_the_class_does_not_use_changes_no_digest(main, tmp_path):
    main.__file__ = str(tmp_path / "script.py")
    digests = []
    for script in (SCRIPT, SCRIPT.replace("trains", "again"), SCRIPT.replace("np.sqrt", "np.exp")):
        (tmp_path / "script.py").write_text(script)
        digests.append(of_class(made(Settings=object)).digest)
    assert digests[0] == digests[1] != digests[2]


def test_settings_beside_the_class_and_modules_beside_the_script(main, tmp_path):
    main.__file__ = str(tmp_path / "script.py")
    (tmp_path / "layers.py").write_text("WIDTH = 3\n")
    (tmp_path / "script.py").write_text(
        "import layers\nclass Settings: pass\nclass MyGAN:\n    width = layers.WIDTH\n"
    )
    code = of_class(made())
    assert sorted(code.files) == ["layers.py", "script.py"]
    assert "class Settings" in code.files["script.py"].decode()


@pytest.mark.parametrize(
    ("script", "kept"),
    {
        "W = 4; print(1)": "W = 4",
        "\x0cV = 1\n\nW = 2": "\n\nW = 2",
        "V = '\x85\u2028\x0c'\nW = V": "V = '\x85\u2028\x0c'\nW = V",
        "W = '''a\r\nb''' + (\r\n 'c')": "W = '''a\nb''' + (\n 'c')",
        "W = 1\rV = 2": "W = 1",
        "# coding: latin-1\nW = 'é'": "\nW = 'é'",
        "for W in (4, 8): pass": "for W in (4, 8): pass",
        "with open('/dev/null') as f: W = f": "with open('/dev/null') as f: W = f",
        "while (W := 8) < 3: pass": "while (W := 8) < 3: pass",
        "match 3:\n    case W: pass": "match 3:\n    case W: pass",
        "print(V := 1, [W := x for x in 'a'])": "print(V := 1, [W := x for x in 'a'])",
        "from os import *": "from os import *",
        "W = {}\nfor k in 'ab':\n    W[k] = 1": "W = {}\nfor k in 'ab':\n    W[k] = 1",
        "W = 1; V = 2; W += V; V[W] = 1": "W = 1; V = 2; W += V; V[W] = 1",
        "V = " + "1 + " * 900 + "1\nW = 1": "\nW = 1",
        "@print\ndef W(): pass": "@print\ndef W(): pass",
    }.items(),
)
def test_statements_are_cut_where_python_cuts_them(script, kept, main, tmp_path):
    main.__file__ = str(tmp_path / "script.py")
    text = f"{script}\nclass MyGAN:\n    def step(self):\n        return W\n"
    encoding = "latin-1" if "latin" in script else "utf-8"
    (tmp_path / "script.py").write_bytes(text.encode(encoding))
    source = of_class(made(Settings=object)).files["script.py"].decode()
    assert source.partition("\nclass MyGAN:")[0].rstrip("\n") == kept
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert source.split("\n").index("class MyGAN:") == lines.index("class MyGAN:")


@pytest.mark.parametrize("name", ["pkg.__main__", "pkg.script", "__main__"])
def test_of_a_program_that_is_run_as_a_module(name, main, tmp_path):
    """Its package is that of relative imports, and no module has the name `__main__`."""
    folder = tmp_path / "pkg" if "." in name else tmp_path
    path = folder / f"{name.rpartition('.')[2]}.py"
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / "nets.py").write_text("WIDTH = 3\n")
    near = "." if "." in name else ""
    path.write_text(f"from {near or 'nets'} import {'nets' if near else 'WIDTH as nets'}\n")
    with path.open("a") as file:
        file.write("class MyGAN:\n    step = nets\n")
    main.__file__ = str(path)
    main.__spec__ = importlib.machinery.ModuleSpec(name, None, origin=str(path))
    code = of_class(made(Settings=object))
    assert code.module == (name if near else "MyGAN") and "__main__" not in code.modules
    assert ("pkg.nets" if near else "nets") in code.modules


@pytest.fixture
def notebook(main, tmp_path, monkeypatch):
    """Give the module, and its digest, of a class in cells that were run."""
    monkeypatch.chdir(tmp_path)
    cells: list[str] = []
    magic = re.compile("%%(.*)\n")

    def transform(cell):
        if found := magic.match(cell):
            return f"get_ipython().run_cell_magic({found[1]!r}, '', {cell[found.end() :]!r})\n"
        return cell.replace("%time ", "")

    shell = SimpleNamespace(
        user_ns={"In": cells},
        input_transformer_manager=SimpleNamespace(transform_cell=transform),
    )
    python = ModuleType("IPython")
    python.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", python)

    def code(*run):
        cells[:] = ["", *run]
        found = of_class(made(Settings=object))
        return found.files["MyGAN.py"].decode(), found.digest

    return code


IMPORTS = "import os\nimport math"
GAN = "class MyGAN:\n    size = W\n    def step(self):\n        return loss(math), rmtree"
LOSS = "def loss(x):\n    return -x"


def test_of_a_notebook_the_last_run_of_each_cell_counts(notebook):
    new = LOSS.replace("-x", "x")
    text, _ = notebook(
        IMPORTS, "W = 3", LOSS, GAN, "1 +", "%time os.getcwd()", new, "distgan.train(MyGAN)"
    )
    assert text.index("import math") < text.index("return x") < text.index("class MyGAN")
    assert "-x" not in text and "getcwd" not in text and "train" not in text
    assert compile(text, "MyGAN.py", "exec")


def test_a_cell_that_is_run_again_unchanged_changes_no_digest(notebook):
    extra = "MyGAN.lr = 3\nMyGAN.by['a'] = 1"
    cells = [
        "from __future__ import annotations",
        "from shutil import *",
        IMPORTS,
        "W = 3",
        LOSS,
        GAN,
        extra,
    ]
    text, digest = notebook(*cells)
    assert text.index("class MyGAN") < text.index("MyGAN.lr") < text.index("MyGAN.by")
    for again in cells:
        order = [*cells, again, extra] if again == GAN else [*cells, again]
        assert notebook(*order)[1] == digest, again
    assert notebook(*cells, "MyGAN.lr = 4")[1] != digest


@pytest.mark.parametrize(
    ("cells", "size"),
    [
        (["W = 3", "W *= 2", GAN], 6),
        (["W = 3", GAN, "W *= 2"], 3),
        (["W = 3", GAN, "W *= 2", GAN], 6),
        (["W = 3", "W = W + 1", GAN], 4),
        (["W = 3", "W = W + 1", "W = 3", GAN], 3),
        (["W = 3", GAN, "W = 5"], 5),
        (["W, V = 3, 4", "V = 9", "W = V", GAN], 9),
        (["class MyGAN: pass", "V = [2]", "V[0] = 3", "def f(): return V[0]", "W = f()", GAN], 3),
        (["for W in (3, 4): pass", GAN], 4),
        (["W = 3", f"%%time\n{GAN}"], 3),
        (["W = 3", GAN, "MyGAN.size = 7"], 7),
        (["W = 3", GAN, "MyGAN.size = 7", GAN], 3),
        (["V = {}", "V['a'] = {}", "V['a']['b'] = 1", "V['a'] = {}", "W = V", GAN], {"a": {}}),
    ],
)
def test_a_notebooks_module_has_the_values_of_the_notebook(cells, size, notebook):
    space: dict = {}
    exec(notebook(IMPORTS, LOSS, *cells)[0], space)
    assert space["MyGAN"].size == size


def test_a_magic_that_does_more_than_run_its_cell_is_named(notebook):
    with pytest.raises(ConfigError, match="found no `class MyGAN:` .*; one begins with %%bash"):
        notebook(f"%%bash\n{GAN}")


def test_without_a_source_it_says_what_to_do(main):
    with pytest.raises(ConfigError, match="typed at a prompt; save the class to a file, my_gan"):
        of_class(made())


def test_a_module_is_named_as_on_the_command_line(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text("class Recipe: pass\nclass Other: pass\n")
    module = ModuleType("nets")
    module.__file__ = str(tmp_path / "nets.py")
    monkeypatch.setitem(sys.modules, "nets", module)
    assert of_class(made("Recipe", "nets")).name == "nets"
    assert of_class(made("Other", "nets")).name == "nets.Other"
    with pytest.raises(ConfigError, match="has no source file"):
        of_class(made(module="builtins"))
    with pytest.raises(ConfigError, match=r"^int has no method step\(batches, now\): it is no"):
        of_class(int)
