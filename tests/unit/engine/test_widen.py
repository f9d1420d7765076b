"""A wider network from a narrower one: it starts as the narrow one, and says what it took."""

import json
import shutil

import numpy as np
import pytest
import torch
from processes import final, line, run
from safetensors.torch import load_file, save_file

from distgan.config import batch_layout, loading
from distgan.core import rng
from distgan.core.errors import ConfigError
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks
from distgan.engine.widen import widen
from distgan.evaluation.features.choice import Choice
from distgan.evaluation.image_evaluator import Evaluator
from distgan.nn import normalization
from distgan.recipes._base import build_recipe
from distgan.recipes._catalog import resolve_recipe
from distgan.runs import checkpoints
from distgan.runs.locate import find_checkpoint, find_start
from distgan.shards.build import command as shard_command


@pytest.fixture
def build(particles):
    """`build("sagan", 8, "latent=4")` -> the recipe with both widths 8, in float64, so that equal
    means equal.
    """

    def make(name, width, *words, size=64):
        module, tree = resolve_recipe(name)
        run = loading.validate(
            module.Settings,
            tree,
            [
                f"data={particles}",
                "batch=8",
                "latent=4",
                "precision=float64",
                f"ngf={width}",
                f"ndf={width}",
                *words,
            ],
        )
        ranks = Ranks(run.machine, run.precision)
        return build_recipe(
            module,
            run,
            ranks,
            batch_layout.fit(run.batch, 1, 1, run.group, run.group_of),
            (1, size, size),
        )

    return make


@pytest.fixture
def trained(build, tmp_path):
    """`trained("sagan", 8)` -> (the recipe, its checkpoint) as training would leave them.

    No weight, average, statistic or gamma at its start.
    """

    def make(name, width, *words, size=64):
        recipe = build(name, width, *words, size=size)
        for p, player in recipe.players.items():
            for n, (key, value) in enumerate(player.tensors().items()):
                if not key.endswith((".u", ".v")):
                    change = rng.normal(1, f"{p}/{key}", n, tuple(value.shape)).to(value.dtype)
                    value.mul_(torch.exp(0.3 * change)).add_(0.02 * change).add_(
                        0.5 * key.endswith("gamma")
                    )
            for _ in range(15):
                normalization.begin_update(player.module)
            player.updates.fill_(4000)
        path = checkpoints.save(
            tmp_path / "narrow" / "checkpoints",
            12,
            checkpoints.held(recipe.players),
            {"samples": 96},
        )
        return recipe, path

    return make


def outputs(recipe):
    """What a recipe's networks make of the same inputs.

    Averaged and current G, G in training mode, D.
    """
    noise, images = (
        rng.normal(0, "test/noise", 0, (8, 4)).double(),
        rng.normal(0, "test/images", 0, (3, 1, 64, 64)).double(),
    )
    with torch.no_grad(), recipe.G.evaluating_ema() as average, recipe.D.evaluating() as D:
        found = {"average": average(noise), "G": recipe.G.module(noise), "D": D(images)}
        recipe.G.module.eval()
        found["G, eval"] = recipe.G.module(noise)
        recipe.G.module.train()
        return found


ATTENTIVE = "attention=[8,16]"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sagan", [ATTENTIVE]),
        ("wgan_flowers", ["ema=0.9", ATTENTIVE, "spectral_norm=[G,D]", "weight_clip=null"]),
        ("wgan_flowers", ["spectral_norm=[D]"]),
    ],
    ids=str,
)
def test_the_grown_network_starts_as_the_narrow_one(trained, build, name, words):
    narrow, path = trained(name, 8, *words)
    wide = build(name, 12, *words)
    before = outputs(wide)
    widen(path, wide.players)
    for what, value in outputs(narrow).items():
        scale = value.abs().max()
        assert (outputs(wide)[what] - value).abs().max() < 1e-12 * scale, what
        assert (before[what] - value).abs().max() > 0.01 * scale, what


def inner(net, images_last: bool, layers: int, x):
    """What the layers of a network make of x but those nearest the image, `layers` of them."""
    body = net.layers[:-layers] if images_last else net.layers[layers:]
    for layer in body:
        x = layer(x)
    return x


@pytest.mark.parametrize(
    ("name", "words", "size", "nearest"),
    [
        # layers nearest the image that only the larger network has, of G and of D
        ("sagan", ["attention=[8]"], (32, 64), (5, 4)),
        ("sagan", [ATTENTIVE], (32, 64), (5, 5)),
        ("wgan_flowers", ["ema=0.9"], (16, 32), (5, 5)),
        ("wgan_flowers", ["spectral_norm=[G,D]", "weight_clip=null"], (16, 64), (8, 8)),
    ],
    ids=str,
)
@pytest.mark.parametrize("width", [8, 12])
def test_networks_for_larger_images_keep_the_layers_of_smaller_ones(
    trained, build, name, words, size, nearest, width
):
    """Features at the resolutions that both have are the same; 8 channels of 32x32 are as wide at
    16x16 as 4 of 64x64.
    """
    small, path = trained(name, 8 * size[1] // size[0], *words, size=size[0])
    large = build(name, width, *words, size=size[1])
    fresh = {key: value.clone() for key, value in large.G.tensors().items()}
    lines = widen(path, large.players)
    noise = rng.normal(0, "test/noise", 0, (8, 4, 1, 1)).double()
    with torch.no_grad():
        for net in (small.G.module, large.G.module, small.D.module, large.D.module):
            net.eval()
        # G: up to the last resolution of the small one; its last convolution and Tanh are dropped
        expected = inner(small.G.module, True, 2, noise)
        found = inner(large.G.module, True, nearest[0], noise)[:, : expected.shape[1]]
        assert (found - expected).abs().max() < 1e-12 * expected.abs().max()
        # D: from the second block of the small one on
        first = small.D.module.block_ends[0]
        channels = small.D.module.layers[0].out_channels
        x = rng.normal(0, "test/features", 0, (3, channels, 8, 8)).double()[:, :, : size[0] // 2]
        x = x[..., : size[0] // 2].repeat(1, 1, max(1, size[0] // 16), max(1, size[0] // 16))
        wide = torch.zeros(3, large.D.module.layers[nearest[1]].in_channels, *x.shape[2:]).double()
        wide[:, :channels] = x
        expected = inner(small.D.module, False, first, x)
        found = inner(large.D.module, False, nearest[1], wide)
        assert (found - expected).abs().max() < 1e-12 * expected.abs().max()
    last = max(int(key.split(".")[2]) for key in fresh if key.startswith("net."))
    key = next(key for key in fresh if key.startswith(f"net.layers.{last}.") and "bias" in key)
    assert torch.equal(large.G.tensors()[key], fresh[key])
    assert any(line.startswith(f"G.net.layers.{last}.") and "new ->" in line for line in lines)
    assert int(large.G.updates) == 0  # the average follows the new layers at once


def test_another_structure_is_no_smaller_image(trained, build):
    _, path = trained("sagan", 8, "attention=[8]")
    with pytest.raises(ConfigError, match="only this run has it"):
        widen(path, build("sagan", 8, "attention=[8,32]").players)
    _, path = trained("sagan", 8, "attention=[8]", size=32)
    with pytest.raises(ConfigError, match="only the checkpoint has it"):
        widen(path, build("sagan", 8, "attention=[16]").players)
    with pytest.raises(ConfigError, match="fine_tune: .* does not hold these networks"):
        widen(path, build("sagan", 8, "attention=[8]").players, "fine_tune")
    _, path = trained("sagan", 8, "attention=[8]")
    with pytest.raises(ConfigError, match="does not hold this network in the same or smaller"):
        widen(path, build("sagan", 8, "attention=[8]", size=32).players)


def test_every_overlap_is_copied_and_the_rest_is_this_runs_own(trained, build):
    """Alone what leads from new channels to old ones is 0, and new weights under spectral
    normalisation are scaled.
    """
    _, path = trained("sagan", 8, ATTENTIVE)
    narrow, wide = load_file(path / "networks.safetensors"), build("sagan", 12, ATTENTIVE)
    fresh = {
        f"{name}.{key}": value.clone()
        for name, player in wide.players.items()
        for key, value in player.tensors().items()
    }
    widen(path, wide.players)
    for name, player in wide.players.items():
        for key, value in ((f"{name}.{key}", value) for key, value in player.tensors().items()):
            front = tuple(slice(size) for size in narrow[key].shape)
            if not key.endswith(".v"):  # laid out over several axes
                assert torch.equal(value[front], narrow[key]), key
            if key == "G.net.layers.3.weight":  # [in, out, 4, 4]
                assert value.shape == (96, 48, 4, 4) and narrow[key].shape == (64, 32, 4, 4)
                assert torch.equal(value[:, 32:], fresh[key][:, 32:]) and not value[64:, :32].any()
            if key in ("G.ema.layers.9.bias", "G.net.layers.4.running_var"):
                assert torch.equal(value[len(narrow[key]) :], fresh[key][len(narrow[key]) :])
            if key.endswith("layers.5.parametrizations.weight.original"):  # [out, in, 4, 4]
                assert not value[:32, 16:].any() and value[32:].any(1).all()


def test_spectral_norms_hardly_rise_when_new_channels_are_found(trained, build):
    """u and v of the narrow network are padded.

    The power iteration then finds what is new, which must not turn D down.
    """
    narrow, path = trained("sagan", 8)
    with (
        torch.no_grad()
    ):  # a D that learnt little: its weights are smaller than those that this run draws
        for key, value in narrow.D.tensors().items():
            if key.endswith("original"):
                value.mul_(0.3)
    shutil.rmtree(path)
    path = checkpoints.save(path.parent, 12, checkpoints.held(narrow.players), {"samples": 96})
    wide = build("sagan", 12)
    widen(path, wide.players)
    for _ in range(50):
        normalization.begin_update(wide.D.module)
    old, new = narrow.D.tensors(), wide.D.tensors()
    for key in (key for key in old if key.endswith("original")):
        a, b = (torch.linalg.matrix_norm(tensors[key].flatten(1), 2) for tensors in (old, new))
        assert a <= b < 1.12 * a, key  # sqrt(1 + LARGEST_NEW²)


def test_averages_go_on_and_optimizers_start_anew(trained, build):
    _, path = trained("sagan", 8)
    wide = build("sagan", 12)
    widen(path, wide.players)
    assert int(wide.G.updates) == 4000 and wide.G.engine.optimizer_state() == {}
    average = wide.G.tensors()["ema.layers.0.weight"].clone()
    noise, real = rng.normal(0, "n", 0, (8, 4)).double(), torch.zeros(8, dtype=torch.float64)
    wide.G.update(
        lambda micro: (((wide.G(micro).mean((1, 2, 3)) - real) ** 2).mean(), {}), [noise], 0.0
    )
    moved = (wide.G.tensors()["ema.layers.0.weight"] - average).abs().max()
    assert (
        0 < moved < 0.01 * (wide.G.tensors()["net.layers.0.weight"] - average).abs().max()
    )  # from 0 updates it would have been 82 %
    assert all(state["step"] == 1 for state in wide.G.engine.optimizer_state().values())


def test_an_average_that_only_one_of_them_has(trained, build):
    narrow, path = trained("sagan", 8, "ema=null")
    wide = build("sagan", 12)
    widen(path, wide.players)
    with wide.G.evaluating_ema() as average:
        assert torch.equal(average.layers[0].weight[:, :64], narrow.G.module.layers[0].weight)
    _, path = trained("sagan", 8)
    widen(path, build("sagan", 12, "ema=null").players)


def test_the_report_names_every_shape(trained, build):
    _, path = trained("sagan", 8)
    lines = widen(path, build("sagan", 12).players)
    assert lines[0] == "G.net.layers.0.weight [4, 64, 4, 4] -> [4, 96, 4, 4]"
    assert (
        "D.net.layers.4.key.parametrizations.weight.original [2, 16, 1, 1] -> [3, 24, 1, 1]"
        in lines
    )
    assert len(lines) == 1 + sum(
        len(list(player.module.parameters())) for player in build("sagan", 12).players.values()
    )
    assert (
        lines[-1].endswith(f"are those of {path}; optimizers start anew")
        and "weights (" in lines[-1]
    )


@pytest.mark.parametrize(
    ("width", "words", "says"),
    [
        (6, [], r"G.net.layers.0.weight: \[4, 64, 4, 4\] there is wider than \[4, 48, 4, 4\] here"),
        (
            12,
            ["latent=3"],
            r"G.net.layers.0.weight: \[4, 64, 4, 4\] there is wider than \[3, 96, 4, 4\] here",
        ),
        (12, ["attention=[8]"], "only the checkpoint has it"),
        (12, [ATTENTIVE], "only this run has it"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_whole(trained, build, width, words, says):
    _, path = trained("sagan", 8)
    wide = build("sagan", width, *words)
    before = checkpoints.digest(wide.players)
    with pytest.raises(ConfigError, match=says):
        widen(path, wide.players)
    assert checkpoints.digest(wide.players) == before


def test_other_kernels_are_refused(trained, build):
    _, path = trained("sagan", 8)
    tensors = load_file(path / "networks.safetensors")
    tensors["G.net.layers.3.weight"] = tensors["G.net.layers.3.weight"][..., :3].contiguous()
    save_file(tensors, path / "networks.safetensors")
    with pytest.raises(
        ConfigError,
        match=(
            r"layers.3.weight: \[64, 32, 4, 3\] there, \[96, 48, 4, 4\] here: they differ in more"
            r" than widths"
        ),
    ):
        widen(path, build("sagan", 12).players)


# ---- where to start from
@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A run folder with checkpoints of steps 12 and 24, of which 12 is the best."""
    recipe, path = trained("sagan", 2)
    checkpoints.save(path.parent, 24, checkpoints.held(recipe.players), {"samples": 192})
    (tmp_path / "narrow" / "status.json").write_text(
        json.dumps({"best": {"step": 12, "score": 1.0}})
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path / "narrow"


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("narrow", 12),
        ("narrow@best", 12),
        ("narrow@last", 24),
        ("narrow@24", 24),
        ("narrow@12", 12),
        ("./narrow/checkpoints/00000024", 24),
        ("at@home@last", 24),
        ("at@home", 12),
    ],
)
def test_a_checkpoint_is_found(folder, text, step):
    shutil.copytree(folder, folder.parent / "at@home")
    path = find_checkpoint(text)
    assert path.is_dir() and path.name == f"{step:08d}" and checkpoints.verify(path)["step"] == step


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nowhere@best", "nowhere is no run folder with checkpoints; allowed are RUN, RUN@best"),
        (
            "narrow@13",
            "there is no checkpoint of step 13; the run keeps steps 12, 24",
        ),
        (
            "narrow@newest",
            "allowed after the @ are best, last, epoch=N and a step; the run keeps steps 12, 24",
        ),
        ("narrow@-1", "allowed after the @ are"),
        ("", "no run folder"),
        ("narrow/checkpoints/00000099", "no run folder"),
    ],
)
def test_a_place_without_a_checkpoint_is_named(folder, text, says):
    with pytest.raises(ConfigError, match=f"^grow: found .*{says}"):
        find_start("grow", text)


def test_a_run_without_a_score_and_a_damaged_checkpoint(folder):
    (folder / "status.json").write_text("{}")
    with pytest.raises(
        ConfigError, match="no best score yet; the run keeps steps 12, 24, as in narrow@last"
    ):
        find_checkpoint("narrow")
    with open(folder / "checkpoints" / "00000012" / "training.pt", "ab") as file:
        file.write(b"x")
    with pytest.raises(ConfigError, match="training.pt is not what was written"):
        find_checkpoint("narrow@12")


# ---- the whole way
SHORT = ["batch=8", "latent=8", "g_lr=1e-3", "d_lr=1e-3", "evaluate.samples=48"]


@pytest.mark.gate
def test_a_grown_run_starts_better_than_from_scratch(particles, tmp_path):
    """8 -> 12 in two processes: the first score is the narrow network's best, far below that of
    fresh networks of either width.
    """
    words = ["sagan", f"data={particles}", *SHORT]
    run(
        line("python"),
        *words,
        "ngf=8",
        "ndf=8",
        "epochs=12",
        "evaluate.schedule=[[null,2]]",
        "machine.folder=narrow",
        cwd=tmp_path,
    )
    said = run(
        line("torchrun", 2),
        *words,
        "ngf=12",
        "ndf=12",
        "epochs=0.1",
        "grow=narrow@best",
        "machine.folder=wide",
        cwd=tmp_path,
    )
    assert "G.net.layers.0.weight [8, 64, 4, 4] -> [8, 96, 4, 4]" in said
    best = json.loads((tmp_path / "narrow" / "status.json").read_text())["best"]["score"]
    grown = json.loads((tmp_path / "wide" / "eval" / "00000000.json").read_text())["score"]
    scratch = _untrained(particles, tmp_path, 12)
    assert grown == pytest.approx(best, rel=1e-4) and grown < 0.5 * scratch, (grown, best, scratch)
    assert any(
        json.loads(text)["event"] == "grown"
        for text in (tmp_path / "wide" / "events.jsonl").read_text().splitlines()
    )
    # It goes on where the narrow run is gone.
    (tmp_path / "narrow").rename(tmp_path / "away")
    said = run(
        line("python"),
        *words,
        "ngf=12",
        "ndf=12",
        "epochs=0.5",
        "grow=narrow@best",
        "machine.folder=wide",
        cwd=tmp_path,
    )
    assert "continuing from step 1" in said
    # The same networks are fine-tuned; wider ones only grow.
    tuned = [*words, "epochs=0.1", "fine_tune=away@best"]
    wider = [*tuned, "machine.folder=wider", "ngf=12", "ndf=12"]
    said = run(line("python"), *wider, cwd=tmp_path, code=2)
    assert "fine_tune: away/checkpoints" in said and "grow=RUN starts wider networks" in said
    said = run(line("python"), *tuned, "machine.folder=tuned", "ngf=8", "ndf=8", cwd=tmp_path)
    first = json.loads((tmp_path / "tuned" / "eval" / "00000000.json").read_text())["score"]
    assert "fine_tuned from away" in said and first == pytest.approx(best, rel=1e-4)


@pytest.mark.gate
def test_a_run_at_a_larger_size_is_alike_in_two_processes_and_after_a_restart(tmp_path):
    for size in (16, 32):
        words = ["particles", str(tmp_path / str(size)), "--n", "40", "--size", str(size)]
        assert shard_command.main([*words, "--workers", "1"]) == 0
    words = ["sagan", *SHORT, "attention=[8]", "precision=float64", "validate_every=100"]
    small = ["data=16", "ngf=8", "ndf=8", "epochs=1", "machine.folder=small"]
    run(line("python"), *words, *small, cwd=tmp_path)
    large = ["data=32", "ngf=4", "ndf=4", "grow=small@last"]
    for folder, processes, lengths in (("one", 1, (1,)), ("two", 2, (0.5, 1))):
        for epochs in lengths:
            way = line("python") if processes == 1 else line("torchrun", processes)
            here = [f"machine.folder={folder}", f"epochs={epochs}"]
            said = run(way, *words, *large, *here, cwd=tmp_path)
    assert "continuing from step" in said
    one, two = final(tmp_path / "one"), final(tmp_path / "two")
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-9


def _untrained(particles, tmp_path, width: int) -> float:
    module, tree = resolve_recipe("sagan")
    settings = loading.validate(
        module.Settings, tree, [f"data={particles}", f"ngf={width}", f"ndf={width}", *SHORT]
    )
    ranks, data = Ranks(settings.machine, settings.precision), Data(settings.data)
    recipe = build_recipe(
        module,
        settings,
        ranks,
        batch_layout.fit(8, 1, 1, settings.group, settings.group_of),
        data.shape,
    )
    return Evaluator(ranks, data, 48, Choice())(lambda numbers: recipe.sample(np.asarray(numbers)))[
        "score"
    ]
