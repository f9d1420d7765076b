"""The source of a recipe that is given as a class: the class of a script or notebook and what it
uses, and nothing that would train again.
"""

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


def test_of_a_notebook_the_last_run_of_each_cell_counts(main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = [
        "",
        "import torch\nimport os",
        "def loss(x):\n    return -x",
        "class MyGAN:\n    class Settings: pass\n    def step(self):\n        return loss(torch)",
        "1 +",
        "%time os.getcwd()",
        "def loss(x):\n    return x",
        "distgan.train(MyGAN)",
    ]
    shell = SimpleNamespace(
        user_ns={"In": cells},
        input_transformer_manager=SimpleNamespace(
            transform_cell=lambda cell: cell.replace("%time ", "")
        ),
    )
    python = ModuleType("IPython")
    python.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", python)
    code = of_class(made(Settings=object))
    text = code.files["MyGAN.py"].decode()
    assert "import torch" in text and "return x" in text
    assert "-x" not in text and "getcwd" not in text and "train" not in text
    assert compile(text, "MyGAN.py", "exec")


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
