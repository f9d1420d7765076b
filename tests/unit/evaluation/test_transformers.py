"""DINOv2 and CLIP from files with the published names of weights, against a forward pass that is
written out here; seeded weights and two layers, since the published files cannot be had.
"""

import hashlib
import warnings

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from distgan.core.errors import ConfigError, RunError
from distgan.evaluation.features import transformers
from distgan.evaluation.features.choice import Choice
from distgan.metrics import cmmd

pytest.importorskip("timm", reason="pip install 'distgan[transformers]'")
DIM, HEADS, LAYERS = 1024, 16, 2
NAMES = {
    "dinov2": ("norm{}", "attn.qkv.", "attn.proj", "mlp.fc1", "mlp.fc2"),
    "clip": ("ln_{}", "attn.in_proj_", "attn.out_proj", "mlp.c_fc", "mlp.c_proj"),
}


def seeded(shapes):
    draw = np.random.default_rng(0).standard_normal
    return {
        name: torch.from_numpy(draw(shape).astype(np.float32)) * (0.02 if len(shape) > 1 else 0.3)
        for name, shape in shapes.items()
    }


def layer(network):
    norm, qkv, projection, first, second = NAMES[network]
    shapes = {f"{norm.format(i)}.{x}": (DIM,) for i in (1, 2) for x in ("weight", "bias")}
    for name, (rows, columns) in {
        qkv: (3 * DIM, DIM),
        f"{projection}.": (DIM, DIM),
        f"{first}.": (4 * DIM, DIM),
        f"{second}.": (DIM, 4 * DIM),
    }.items():
        shapes |= {f"{name}weight": (rows, columns), f"{name}bias": (rows,)}
    return shapes | ({"ls1.gamma": (DIM,), "ls2.gamma": (DIM,)} if network == "dinov2" else {})


def dinov2_weights():
    shapes = {
        "cls_token": (1, 1, DIM),
        "mask_token": (1, DIM),
        "pos_embed": (1, 1 + 37 * 37, DIM),
        "patch_embed.proj.weight": (DIM, 3, 14, 14),
        "patch_embed.proj.bias": (DIM,),
        "norm.weight": (DIM,),
        "norm.bias": (DIM,),
    }
    for i in range(LAYERS):
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in layer("dinov2").items()}
    return seeded(shapes)


def clip_weights():
    shapes = {
        "class_embedding": (DIM,),
        "positional_embedding": (1 + 24 * 24, DIM),
        "conv1.weight": (DIM, 3, 14, 14),
        "proj": (DIM, 768),
        **{f"ln_{i}.{x}": (DIM,) for i in ("pre", "post") for x in ("weight", "bias")},
    }
    for i in range(LAYERS):
        block = f"transformer.resblocks.{i}"
        shapes |= {f"{block}.{name}": shape for name, shape in layer("clip").items()}
    return seeded({f"visual.{name}": shape for name, shape in shapes.items()})


class Published(torch.nn.Module):
    """A module of these weights, by their names, which TorchScript can save."""

    def __init__(self, weights):
        super().__init__()
        for name, value in weights.items():
            *path, leaf = name.split(".")
            module = self
            for part in path:
                if not hasattr(module, part):
                    setattr(module, part, torch.nn.Module())
                module = getattr(module, part)
            module.register_buffer(leaf, value.half())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{network: (its file, the weights in it)}, allowed by their digests."""
    home, allowed = tmp_path_factory.mktemp("weights"), pytest.MonkeyPatch()
    weights = {"dinov2": dinov2_weights(), "clip": clip_weights()}
    torch.save(weights["dinov2"], home / "dinov2")
    with warnings.catch_warnings():  # of torch.jit, that it is deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Published(weights["clip"])), home / "clip")
    weights["clip"] = {name: value.half().float() for name, value in weights["clip"].items()}
    for name, kind in transformers.NETWORKS.items():
        digest = hashlib.sha256((home / name).read_bytes()).hexdigest()
        allowed.setattr(kind, "sha256", digest)
    allowed.setattr(transformers.Transformer, "depth", LAYERS)
    yield {name: (home / name, each) for name, each in weights.items()}
    allowed.undo()


def block(x, weights, network):
    """One layer on tokens [n, t, 1024]."""
    norm, qkv, projection, first, second = NAMES[network]
    eps = 1e-6 if network == "dinov2" else 1e-5

    def linear(y, name):
        return F.linear(y, weights[f"{name}weight"], weights[f"{name}bias"])

    def normed(y, i):
        name = norm.format(i)
        return F.layer_norm(y, (DIM,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    n, t, _ = x.shape
    q, k, v = linear(normed(x, 1), qkv).reshape(n, t, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
    seen = (q @ k.transpose(-2, -1) / (DIM // HEADS) ** 0.5).softmax(-1) @ v
    y = linear(seen.transpose(1, 2).reshape(n, t, DIM), f"{projection}.")
    x = x + y * weights.get("ls1.gamma", torch.ones(DIM))
    y = linear(normed(x, 2), f"{first}.")
    y = F.gelu(y) if network == "dinov2" else y * torch.sigmoid(1.702 * y)
    return x + linear(y, f"{second}.") * weights.get("ls2.gamma", torch.ones(DIM))


def expected(network, weights, images):
    """Features, from images that are resized and standardised."""
    of_blocks = "blocks." if network == "dinov2" else "transformer.resblocks."
    weights = {name.removeprefix("visual."): value for name, value in weights.items()}
    if network == "dinov2":
        patches = F.conv2d(images, weights["patch_embed.proj.weight"], None, 14)
        patches = patches + weights["patch_embed.proj.bias"][:, None, None]
        grid = weights["pos_embed"][:, 1:].reshape(1, 37, 37, DIM).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, (16, 16), mode="bicubic", antialias=True)
        places = torch.cat([weights["pos_embed"][:, :1], grid.flatten(2).transpose(1, 2)], 1)
        start = weights["cls_token"]
    else:
        patches = F.conv2d(images, weights["conv1.weight"], None, 14)
        places = weights["positional_embedding"][None]
        start = weights["class_embedding"][None, None]
    tokens = patches.flatten(2).transpose(1, 2)
    x = torch.cat([start.expand(len(images), -1, -1), tokens], 1) + places
    if network == "clip":
        x = F.layer_norm(x, (DIM,), weights["ln_pre.weight"], weights["ln_pre.bias"], 1e-5)
    for i in range(LAYERS):
        prefix = f"{of_blocks}{i}."
        of_layer = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        x = block(x, of_layer, network)
    if network == "dinov2":
        return F.layer_norm(x[:, 0], (DIM,), weights["norm.weight"], weights["norm.bias"], 1e-6)
    x = F.layer_norm(x[:, 0], (DIM,), weights["ln_post.weight"], weights["ln_post.bias"], 1e-5)
    return F.normalize(x @ weights["proj"], dim=1)


@pytest.mark.gate
@pytest.mark.parametrize("network", transformers.NETWORKS)
def test_features_are_those_of_the_published_network(network, files):
    file, weights = files[network]
    extract = Choice(network, weights=str(file)).build()
    side, (mean, sd) = extract.side, extract.scale
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, side, side), dtype=np.uint8)
    images = torch.from_numpy(pixels)
    mean, sd = (torch.tensor(each)[:, None, None] for each in (mean, sd))
    with torch.no_grad():
        features = extract(images)
        torch.testing.assert_close(
            features, expected(network, weights, (images / 255 - mean) / sd), rtol=0, atol=2e-4
        )
        assert extract(images[:, :1, :20, :24]).shape == features.shape
    assert features.abs().max() < extract.largest and features.std() > 0.01


@pytest.mark.gate
def test_other_files_are_refused(files, tmp_path):
    other, _ = files["clip"]
    with pytest.raises(RunError, match="SHA-256 is .* that of DINOv2"):
        Choice("dinov2", weights=str(other)).build()
    with pytest.raises(RunError, match="No such file"):
        Choice("clip", weights=str(tmp_path / "none")).build()
    with pytest.raises(ConfigError, match="needs --weights FILE, the published file of CLIP"):
        Choice("clip").build()
    with pytest.raises(ConfigError, match="goes with --extractor dinov2 or clip"):
        Choice("lite0", weights=str(other)).build()


def test_cmmd_is_the_mean_over_all_pairs():
    rng = np.random.default_rng(0)
    a, b = (F.normalize(torch.from_numpy(rng.standard_normal((n, 7)) + n), dim=1) for n in (5, 9))

    def mean(x, y):
        squares = ((x[:, None] - y[None]) ** 2).sum(2)
        return torch.exp(-squares / 200).mean()

    direct = 1000 * (mean(a, a) + mean(b, b) - 2 * mean(a, b))
    assert cmmd.distance(a.float(), b.float()) == pytest.approx(float(direct), rel=1e-5)
    assert cmmd.distance(a, a) == pytest.approx(0, abs=1e-12)
