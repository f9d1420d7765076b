"""docs/loader.md: its loop trains alike on one process and two, and goes on where it was ended; so
does a run on a Dataset of one's own.
"""

import re
import sys

import pytest
import torch
from processes import ROOT, TINY, final, line, run

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


PHOTOS = """
import numpy as np

class Photos:
    fingerprint, classes = "photos v1", ("dark", "light")

    def __len__(self):
        return 60

    def __getitem__(self, i):
        return np.random.default_rng(i).integers(0, 100 + i % 2 * 100, (3, 32, 32), np.uint8), i % 2
"""


def test_a_run_on_a_dataset_of_ones_own_is_one_run(tmp_path):
    (tmp_path / "my_data.py").write_text(PHOTOS)
    words = ["sagan", *TINY, "data=my_data.py:Photos", "precision=float64", "conditional=true"]
    words += ["machine.resident_mb=0", "machine.workers=1"]
    run(line("distgan"), *words, "epochs=2", "machine.folder=one", cwd=tmp_path)
    for processes, epochs in ((2, 1), (1, 2)):
        way = line("torchrun" if processes > 1 else "distgan", processes)
        run(way, *words, f"epochs={epochs}", "machine.folder=two", cwd=tmp_path)
    one, two = (final(tmp_path / name) for name in ("one", "two"))
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-12
    distgan = [sys.executable, "-m", "distgan"]
    said = run([*distgan, "evaluate", "one", "--n", "24", "--device", "cpu"], cwd=tmp_path)
    assert "frechet_standin" in said
    run([*distgan, "generate", "one", "--n", "4", "--class", "light"], cwd=tmp_path)
    for verb in ("check", "index"):
        said = run([*distgan, verb, "my_data.py:Photos"], cwd=tmp_path, code=2)
        assert "names a Dataset" in said and "Traceback" not in said
