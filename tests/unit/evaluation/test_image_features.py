"""Inception's features and what it looks at, against the packages that are in use.

Which weights are taken, and what scores on them are called.
"""

import copy
import json
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch
from processes import ROOT, run
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bench import extraction, weights
from distgan.config.settings import Run
from distgan.core.errors import ConfigError, RunError
from distgan.evaluation.features import inception, inception_input
from distgan.metrics import frechet

SIZES = [(64, 64), (299, 299), (400, 300), (30, 500)]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """(A file of seeded weights in Inception's shapes, its SHA-256)."""
    file = tmp_path_factory.mktemp("weights") / "inception.pth"
    return file, weights.write(file)


@pytest.fixture(scope="module")
def both(stand_in):
    """(Our network, pytorch-fid's) with these weights."""
    return extraction.networks(*stand_in)


def pixels(height, width, channels=3):
    return torch.from_numpy(
        np.random.default_rng(height).integers(0, 256, (2, channels, height, width), dtype=np.uint8)
    )


def seen(net, images):
    """What the first convolution of another package's network is given."""
    found = []
    net.Conv2d_1a_3x3.register_forward_pre_hook(lambda module, given: found.append(given[0]))
    with torch.no_grad():
        net(images)
    return found[0]


# ---- what Inception looks at
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_clean_is_clean_fids(height, width):
    cleanfid = pytest.importorskip("cleanfid.resize", reason="pip install clean-fid==0.1.35")
    images = pixels(height, width)
    theirs = torch.from_numpy(
        np.stack(
            [cleanfid.build_resizer("clean")(image) for image in images.permute(0, 2, 3, 1).numpy()]
        )
    ).permute(0, 3, 1, 2)
    torch.testing.assert_close(
        inception_input.prepare(images, "clean"), (theirs - 128) / 128, rtol=0, atol=1e-5
    )


@pytest.mark.gate
@pytest.mark.parametrize(
    ("way", "package"), [("tensorflow", "torch_fidelity"), ("antialiased", "torchmetrics")]
)
def test_the_other_two_are_torch_fidelitys_and_torchmetrics(way, package, stand_in):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if package == "torch_fidelity":
            module = pytest.importorskip(
                "torch_fidelity.feature_extractor_inceptionv3",
                reason="pip install torch-fidelity==0.4.0",
            )
            net = module.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(stand_in[0])
            )
        else:
            pytest.importorskip(
                "torch_fidelity", reason="pip install torch-fidelity==0.4.0 torchmetrics==1.9.0"
            )
            module = pytest.importorskip(
                "torchmetrics.image.fid", reason="pip install torchmetrics==1.9.0"
            )
            net = module.NoTrainInceptionV3("inception-v3-compat", ["2048"], str(stand_in[0]))
        for height, width in SIZES:
            images = pixels(height, width)
            torch.testing.assert_close(
                inception_input.prepare(images, way), seen(net, images), rtol=0, atol=1e-5
            )


@pytest.mark.gate
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_bilinear_is_pytorch_fids(height, width, both):
    images, found = pixels(height, width), []
    hook = (
        both[1].blocks[0][0].register_forward_pre_hook(lambda module, given: found.append(given[0]))
    )
    with torch.no_grad():
        both[1](images.float() / 255)
    hook.remove()
    torch.testing.assert_close(
        inception_input.prepare(images, "bilinear"), found[0], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("way", inception_input.METHODS)
def test_gray_is_repeated_and_nothing_but_bytes_is_taken(way):
    gray = pixels(40, 50, 1)
    assert torch.equal(
        inception_input.prepare(gray, way), inception_input.prepare(gray.expand(-1, 3, -1, -1), way)
    )
    for bad, found in (
        (gray.float() / 255, "float32"),
        (gray[0], "uint8"),
        (gray.expand(-1, 4, -1, -1), "uint8"),
    ):
        with pytest.raises(
            ValueError, match=f"uint8 .batch, 1 or 3, height, width., found {found}"
        ):
            inception_input.prepare(bad, way)


# ---- features
@pytest.mark.gate
def test_features_are_pytorch_fids(both):
    ours, theirs = both
    images = extraction._images(6, 0)
    with torch.no_grad():
        expected = theirs(images.float() / 255)[0].flatten(1)
        found = ours(images)
    assert found.shape == (6, 2048)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.gate
def test_features_are_bit_for_bit_those_of_pytorch_fids_own_network(both):
    """The network built from blocks against the one of pytorch-fid's constructor (its download
    replaced by the file), with batch norm folded and laid out as ours.
    """
    ours, theirs = both[0], copy.deepcopy(both[1])
    for module in theirs.modules():
        if hasattr(module, "bn"):
            folded = fuse_conv_bn_eval(module.conv.double(), module.bn.double())
            module.conv, module.bn = folded.float(), torch.nn.Identity()
    theirs.to(memory_format=torch.channels_last)
    images = extraction._images(6, 0)
    x = inception_input.prepare(images, "bilinear").contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        for block in theirs.blocks:
            x = block(x)
    assert torch.equal(ours(images), x.flatten(1))


@pytest.mark.gate
def test_a_row_does_not_depend_on_its_neighbours_in_a_chunk(both):
    net, images = both[0], extraction._images(16, 3)
    whole, turned = net(images), net(images.flip(0))
    assert torch.equal(whole, turned.flip(0))


def test_half_precision_is_refused(stand_in):
    net = inception.Inception(str(stand_in[0]), stand_in[1])
    with (
        pytest.raises(ConfigError, match="features are computed in float32, found autocast"),
        torch.autocast("cpu", torch.bfloat16),
    ):
        net(pixels(32, 32))
    with pytest.raises(ConfigError, match="found torch.bfloat16"):
        net.to(torch.bfloat16)(pixels(32, 32))


# ---- which weights
@pytest.mark.gate
def test_other_weights_are_taken_by_their_hash_and_never_called_by_the_published_name(
    stand_in, tmp_path, monkeypatch
):
    file, digest = stand_in
    for way in ("bilinear", "clean"):
        net = inception.Inception(str(file), digest, way)
        assert (net.metric, net.kernel, net.preprocessing, net.digest) == (
            "frechet_standin",
            "kernel_standin",
            way,
            digest,
        )
        assert "fid" not in (net.label + net.preprocessing).lower()
    with pytest.raises(
        RunError,
        match=(
            "a score on other weights is no FID. For weights of your own, give their SHA-256 as"
            " evaluate.inception_sha256"
        ),
    ):
        inception.Inception(str(file))
    with pytest.raises(
        RunError, match=f"SHA-256 is {digest}, allowed is {'0' * 64} .evaluate.inception_sha256"
    ):
        inception.Inception(str(file), "0" * 64)
    monkeypatch.setattr(
        inception, "INCEPTION_SHA256", digest
    )  # as if the published file were this one
    nets = [inception.Inception(str(file), None, way) for way in ("bilinear", "clean")]
    assert [(net.metric, net.kernel) for net in nets] == [
        ("fid", "kid"),
        ("fid_clean", "kid_clean"),
    ]


def test_a_file_that_holds_something_else(tmp_path):
    import hashlib

    for name, write in (
        ("text", lambda path: path.write_text("no weights")),
        ("other", lambda path: torch.save({"a": torch.zeros(3)}, path)),
    ):
        write(tmp_path / name)
        with pytest.raises(
            RunError,
            match=(
                "holds no weights that torch can load"
                if name == "text"
                else "holds weights of another network"
            ),
        ):
            inception.Inception(
                str(tmp_path / name), hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
            )


def test_identity_of_a_run_follows_the_contents_of_its_weights():
    from distgan.recipes import sagan

    def identity(**evaluate):
        return sagan.Settings(data="x", evaluate=evaluate).identity("data")

    plain, published = identity(), identity(inception="a.pth")
    assert (
        published == identity(inception="elsewhere/b.pth")
        and plain["settings"]["evaluate"]["inception"] is None
    )
    own = identity(inception="a.pth", inception_sha256="ab" * 32)
    assert (
        own["settings"]["evaluate"]["inception"] == "ab" * 32
        and len({plain["id"], published["id"], own["id"]}) == 3
    )
    assert "inception_sha256" not in plain["settings"]["evaluate"] and issubclass(
        sagan.Settings, Run
    )


# ---- distances
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_distance_is_pytorch_fids_where_that_is_exact():
    """For more samples than features; for fewer, its own error is 1e-7 to 1e-5."""
    from pytorch_fid.fid_score import calculate_frechet_distance

    if tuple(map(int, __import__("scipy").__version__.split(".")[:2])) >= (1, 18):
        pytest.skip(
            "pytorch-fid 0.3.0 asks SciPy's sqrtm for disp=, which SciPy 1.18 has no more; pip"
            " install 'scipy<1.18'"
        )
    rng = np.random.default_rng(0)
    a, b = (
        rng.standard_normal((300, 40)) @ rng.standard_normal((40, 40)),
        rng.standard_normal((500, 40)),
    )
    expected = calculate_frechet_distance(
        a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False)
    )
    assert frechet.distance(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(
        float(expected), rel=1e-9
    )


@pytest.mark.nightly
def test_inception_gives_the_same_bits_with_1_2_and_3_processes(particles, stand_in, tmp_path):
    file, digest = stand_in
    whole = None
    for size in (1, 2, 3):
        data = shutil.copytree(
            particles, tmp_path / f"data{size}", ignore=shutil.ignore_patterns("statistics")
        )
        start = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(size),
            str(ROOT / "tests" / "programs" / "evaluation.py"),
        ]
        run(
            start,
            str(data),
            str(tmp_path / f"{size}.json"),
            "19",
            str(file),
            digest,
            cwd=ROOT,
            OMP_NUM_THREADS=str(size),
        )
        found = json.loads((tmp_path / f"{size}.json").read_text())
        assert found == (whole := whole or found), size
    assert whole[0]["metric"] == "frechet_standin" and whole[0]["features"] == 2048


@pytest.mark.nightly
def test_files_score_what_pytorch_fid_says():
    """Both programs from the same 600 + 600 PNG files to a distance, with the same weights.

    Of fewer images than features, pytorch-fid's square root is off by up to 1e-6 itself; so its
    features are also taken to the exact distance. Sets of a few dozen images are no test: the
    rounding of float32 features is then about 1e-6 of their distance.
    """
    found, expected, exact = extraction.files(600)
    assert found == pytest.approx(exact, rel=1e-6) and abs(
        found - expected
    ) <= 1e-6 * expected + abs(exact - expected)
