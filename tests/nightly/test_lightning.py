"""docs/loader.md, `distgan.Loader` in Lightning: each sample once an epoch with 1 and 2 processes,
and where one goes on that the other has begun, from a checkpoint within an epoch or at its end.

`make test-extras` installs Lightning, into an environment of its own.
"""

import re
import sys

import pytest
import torch
from processes import ROOT, run

pytest.importorskip("lightning", reason="Lightning is not installed here: make test-extras")

BLOCK = re.findall(r"```python\n(.*?)```", (ROOT / "docs/loader.md").read_text(), re.DOTALL)[1]
SEEN = """
class Seen(lightning.Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        with open(f"seen-{trainer.global_rank}", "a") as file:
            for image in batch[0]:
                file.write(f"{trainer.current_epoch} {image.numpy().tobytes().hex()}\\n")

"""
KEPT = """    keep = lightning.pytorch.callbacks.ModelCheckpoint(
        "kept", every_n_train_steps=1, save_top_k=-1, filename="{step}"
    )
    torch.set_default_dtype(torch.float64)
"""


@pytest.fixture(scope="module")
def fit(tmp_path_factory, shapes):
    """A function (processes, checkpoint): the page's program; (weights, epochs of samples)."""

    def fitted(processes, checkpoint=None):
        folder, text = tmp_path_factory.mktemp("fit"), BLOCK
        for old, new in {
            "data/shapes": str(shapes),
            "devices=2": f"devices={processes}, callbacks=[keep, Seen()], logger=False",
            "if __name__": f"{SEEN}\nif __name__",
            "    trainer = ": f"{KEPT}    trainer = ",
            "fit(Classifier())": f"fit(Classifier(), ckpt_path={checkpoint and str(checkpoint)!r})",
        }.items():
            assert old in text
            text = text.replace(old, new)
        (folder / "fit.py").write_text(text)
        run([sys.executable, "fit.py"], cwd=folder, cold=True)
        files = [path.read_text().splitlines() for path in folder.glob("seen-*")]
        seen = [line.split() for lines in files for line in lines]
        epochs = [sorted(image for e, image in seen if e == str(epoch)) for epoch in range(3)]
        return folder, epochs

    return fitted


def weights(folder):
    return torch.load(folder / "kept/step=12.ckpt", weights_only=False)["state_dict"]


def differ(a, b):
    a, b = weights(a), weights(b)
    return max(float((a[key] - b[key]).abs().max()) for key in a)


def test_each_sample_once_an_epoch_whoever_begins_and_goes_on(fit):
    (alone, epochs), (two, same) = fit(1), fit(2)
    assert same == epochs == [epochs[0]] * 3 and len(set(epochs[0])) == len(epochs[0]) == 54
    assert differ(alone, two) < 1e-12
    for begun, processes, step in ((alone, 2, 6), (two, 1, 6), (two, 1, 4)):
        folder, rest = fit(processes, begun / f"kept/step={step}.ckpt")
        assert differ(alone, folder) < 1e-12
        assert [len(each) for each in rest] == ([0, 54, 54] if step == 4 else [0, 54 - 32, 54])
