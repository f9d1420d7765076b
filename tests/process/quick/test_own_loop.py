"""docs/loader.md: its loop trains alike on one process and two, and goes on where it was ended."""

import re
import sys

import pytest
import torch
from processes import ROOT, line, run

pytestmark = pytest.mark.gate
BLOCK = re.findall(r"```python\n(.*?)```", (ROOT / "docs/loader.md").read_text(), re.DOTALL)[0]


@pytest.fixture
def loop(tmp_path, shapes):
    """A function: start the page's loop; what it leaves. Of 54 images in batches of 17 the parts
    differ, of the last batch by a half.
    """

    def started(name, processes, **changes):
        text = BLOCK.replace("data/shapes", str(shapes))
        for old, new in {"batch=16": "batch=17", "import os\n": DOUBLE, **changes}.items():
            assert old in text
            text = text.replace(old, new)
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "loop.py").write_text(text)
        command = line("torchrun", processes, folder / "loop.py")
        run(command if processes > 1 else [sys.executable, str(folder / "loop.py")], cwd=folder)
        return torch.load(folder / "last.pt")

    return started


DOUBLE = "import os\n\nimport torch\n\ntorch.set_default_dtype(torch.float64)\n"


def difference(a, b):
    assert a["loader"] == b["loader"]
    return max(float((a["net"][key] - b["net"][key]).abs().max()) for key in a["net"])


def test_the_loop_of_the_page_is_one_loop_on_any_number_of_processes(loop):
    alone, two = loop("alone", 1), loop("two", 2)
    assert alone["loader"]["samples_seen"] == 3 * 54 and difference(alone, two) < 1e-12
    begun = loop("resumed", 2, **{"epoch < 3": "epoch < 1"})
    assert begun["loader"]["samples_seen"] == 54 and difference(alone, loop("resumed", 1)) < 1e-12
    by_mean = {'reduction="sum") * loader.weight': 'reduction="mean")'}
    assert difference(alone, loop("mean", 2, **by_mean)) > 1e-6  # parts of 8 and 9, of 1 and 2
