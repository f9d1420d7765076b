"""Fréchet distances with known answers, extractors by their right names, and the same samples for
any number of ranks.
"""

import hashlib
import types

import numpy as np
import pytest
import shard_sets
import torch

from distgan.config.sections import Machine
from distgan.core import console
from distgan.core.errors import ConfigError, RunError
from distgan.data.dataset import Data
from distgan.distributed.map_over_ranks import map_over_ranks
from distgan.distributed.ranks import Ranks
from distgan.evaluation.features import inception as inception_module
from distgan.evaluation.features.choice import Choice
from distgan.evaluation.features.inception import Inception
from distgan.evaluation.features.stand_in import StandIn
from distgan.evaluation.image_evaluator import Evaluator
from distgan.evaluation.set_statistics import reduce_moments
from distgan.metrics.exact_sums import Sums
from distgan.metrics.frechet import distance as frechet
from distgan.metrics.manifold import nearest


def gaussian(n, d, mean=0.0, scale=1.0, seed=0):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = (x - x.mean(0)) @ torch.linalg.inv(
        torch.linalg.cholesky(torch.cov(x.T))
    ).T  # mean 0, covariance 1, exactly
    return x * scale + mean


@pytest.mark.parametrize(("n", "m"), [(400, 300), (60, 500)])
def test_closed_form_of_two_gaussians(n, m):
    d = 40
    a, b = gaussian(n, d, mean=0.5, scale=2.0), gaussian(m, d, mean=-0.5, scale=1.0, seed=1)
    assert frechet(a, b) == pytest.approx(
        d * 1.0 + d * (2.0 - 1.0) ** 2, rel=1e-9
    )  # |shift|^2 + d (s1 - s2)^2


@pytest.mark.parametrize(("n", "d"), [(30, 100), (300, 20), (2, 5)])
def test_identical_sets_are_at_zero(n, d):
    x = torch.randn(n, d)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)


def test_fewer_samples_than_dimensions_against_the_matrix_square_root():
    a, b = torch.randn(20, 50).double(), torch.randn(30, 50).double() * 1.5
    values = torch.linalg.eigvals(torch.cov(a.T) @ torch.cov(b.T)).real.clamp_min(0)
    expected = (
        (a.mean(0) - b.mean(0)).square().sum()
        + torch.cov(a.T).trace()
        + torch.cov(b.T).trace()
        - 2 * values.sqrt().sum()
    )
    assert frechet(a, b) == pytest.approx(float(expected), rel=1e-5)


def test_refusals():
    with pytest.raises(ValueError, match="at least 2 rows"):
        frechet(torch.randn(1, 3), torch.randn(5, 3))
    with pytest.raises(ValueError, match="not finite"):
        frechet(torch.full((5, 3), float("nan")), torch.randn(5, 3))


# ---- the nearest-neighbour check
def test_nearest_by_hand():
    """On a line: training images at 0, 10 and 20.

    Held-out ones 1, 2 and 4 from their nearest, samples 3, 1 and 4.
    """
    train, held_out, samples = (
        torch.tensor(x)[:, None] for x in ([0.0, 10.0, 20.0], [1.0, 12.0, 24.0], [3.0, 11.0, 24.0])
    )
    assert nearest(samples, train, held_out) == 3 / 2
    assert nearest(train, train, held_out) == 0
    assert nearest(samples, train, train[:2]) is None and nearest(samples, train, None) is None


def test_nearest_against_plain_loops_and_in_pieces():
    train, held_out, samples = torch.randn(40, 9), torch.randn(25, 9), 2 * torch.randn(1100, 9)

    def median(a):
        return np.median(
            [
                min(float(((x - y) ** 2).sum()) ** 0.5 for y in train.double().numpy())
                for x in a.double().numpy()[:1099]
            ]
        )

    assert nearest(samples[:1099], train, held_out) == pytest.approx(
        median(samples) / median(held_out), rel=1e-9
    )


@pytest.mark.parametrize("scale", [(1, 1), (1e4, 1e-3)])
def test_a_filled_ring_is_no_ring_of_modes(tmp_path, scale):
    """A filled ring has the mean and covariance of the modes; units of columns do not matter."""

    def ring(n, seed):
        rng = np.random.default_rng(seed)
        angle = rng.integers(8, size=n) * np.pi / 4
        return np.stack([np.cos(angle), np.sin(angle)], 1) + 0.03 * rng.normal(size=(n, 2))

    np.save(tmp_path / "rows.npy", ring(500, 0) * scale)
    assert (
        shard_sets.shard("vectors", tmp_path / "d", "--from", tmp_path / "rows.npy", "--workers", 1)
        == 0
    )
    data = Data(str(tmp_path / "d"))
    evaluator = Evaluator(Ranks(Machine(device="cpu")), data, 200, Choice())

    def drawn(points):
        return lambda numbers: torch.from_numpy((points * scale)[numbers]).float()

    angle = np.random.default_rng(2).uniform(0, 2 * np.pi, 200)
    filled = np.stack([np.cos(angle), np.sin(angle)], 1)
    good, bad = evaluator(drawn(ring(200, 1))), evaluator(drawn(filled))
    assert good["metric"] == "frechet_vectors" and "kernel_vectors" in good
    assert good["score"] < 2 < 5 < bad["score"], (good["score"], bad["score"])
    assert np.isnan(evaluator(drawn(filled * np.nan))["score"])
    one = next(x for x in (tmp_path / "d" / "statistics").iterdir())
    again = Evaluator(Ranks(Machine(device="cpu")), data, 200, Choice())
    assert again(drawn(filled))["score"] == bad["score"] and one.name.startswith("features-")
    with pytest.raises(ConfigError, match="vectors have features of their own"):
        Evaluator(Ranks(Machine(device="cpu")), data, 200, Choice(inception="weights.pth"))


def test_an_evaluation_tells_copies_from_new_images(particles):
    """Training images as samples are at 0, as the held-out ones by construction at 1."""
    data = Data(str(particles))
    evaluator = Evaluator(Ranks(Machine(device="cpu")), data, len(data.validation), Choice())

    def drawn(split):
        return lambda numbers: (
            data.decode(split, (numbers % len(split)).tolist()).float() / 127.5 - 1
        )

    copies, unseen = evaluator(drawn(data.train)), evaluator(drawn(data.validation))
    assert copies["nearest"] == pytest.approx(0, abs=1e-4) and unseen["nearest"] == pytest.approx(1)
    assert evaluator(lambda numbers: torch.zeros(len(numbers), 1, 64, 64))["nearest"] > 2


def test_the_stand_in_is_the_same_everywhere_and_never_called_fid():
    a, b = StandIn(), StandIn()
    images = torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8)
    assert torch.equal(a(images), b(images))
    assert a(images).shape == (4, 480)
    assert a.metric == "frechet_standin"
    assert "fid" not in (a.metric + a.label).lower()


def test_inception_takes_only_the_published_file(tmp_path):
    with pytest.raises(RunError, match="no such file"):
        Inception(str(tmp_path / "missing.pth"))
    (tmp_path / "other.pth").write_bytes(b"something else")
    with pytest.raises(RunError, match="a score on other weights is no FID"):
        Inception(str(tmp_path / "other.pth"))


@pytest.mark.gate
def test_inception_is_pytorch_fids_network_with_the_files_weights(tmp_path, monkeypatch):
    """The published file cannot be had here.

    Seeded weights of the same shapes take its place, digest and all.
    """
    from pytorch_fid import inception

    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(
            inception,
            "load_state_dict_from_url",
            lambda *args, **kwargs: pytest.fail("a download was tried"),
        )
        patch.setattr(
            "warnings.warn", lambda *args, **kwargs: None
        )  # torchvision's, of names that pytorch-fid uses
        net = inception._inception_v3(num_classes=1008, aux_logits=False, pretrained=False)
        net.Mixed_5b = inception.FIDInceptionA(192, pool_features=32)
        net.Mixed_5c = inception.FIDInceptionA(256, pool_features=64)
        net.Mixed_5d = inception.FIDInceptionA(288, pool_features=64)
        net.Mixed_6b = inception.FIDInceptionC(768, channels_7x7=128)
        net.Mixed_6c = inception.FIDInceptionC(768, channels_7x7=160)
        net.Mixed_6d = inception.FIDInceptionC(768, channels_7x7=160)
        net.Mixed_6e = inception.FIDInceptionC(768, channels_7x7=192)
        net.Mixed_7b = inception.FIDInceptionE_1(1280)
        net.Mixed_7c = inception.FIDInceptionE_2(2048)
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
        weights = {name: value.clone() for name, value in net.state_dict().items()}
        torch.save(weights, tmp_path / "weights.pth")
        patch.setattr(
            inception_module,
            "INCEPTION_SHA256",
            hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest(),
        )
        ours = Inception(str(tmp_path / "weights.pth"))
        patch.setattr(inception, "load_state_dict_from_url", lambda *args, **kwargs: weights)
        theirs = inception.InceptionV3([3]).eval()
    images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    expected = theirs(images.float().div(255).repeat(1, 3, 1, 1))[0].flatten(1)
    torch.testing.assert_close(ours(images), expected)
    assert ours.metric == "fid"


class Dealt:
    """One of `size` ranks, alone in this process."""

    is_main, device = True, torch.device("cpu")

    def __init__(self, rank, size):
        self.rank, self.world_size = rank, size

    def on_all_ranks(self, work):
        return work()

    def gather(self, numbers, rows, total):
        return numbers, rows


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_samples_are_dealt_once_and_do_not_depend_on_the_ranks(size):
    total, extract = 83, StandIn()

    def images(numbers):
        return torch.stack(
            [
                torch.full((1, 64, 64), int(127 * (np.sin(i) + 1)), dtype=torch.uint8)
                for i in numbers
            ]
        )

    def kept(rank, size):
        with console.bar("samples", total, "images") as bar:
            return map_over_ranks(
                Dealt(rank, size), range(total), lambda numbers: (extract(images(numbers)),), bar
            )[0]

    whole = kept(0, 1)[1]
    numbers, rows = zip(*[kept(rank, size) for rank in range(size)], strict=True)
    numbers = np.concatenate(numbers)
    assert sorted(numbers) == list(range(total))
    assert torch.equal(torch.cat([r for r in rows if len(r)])[np.argsort(numbers)], whole)


def test_moments_are_those_of_the_rows_of_all_ranks():
    """Two ranks, here with equal rows: what is reduced is doubled."""
    a, b = torch.randn(5, 3), torch.randn(4, 3)
    sums = [Sums(3) for _ in range(3)]
    sums[1].add(a)
    sums[2].add(b)
    ranks = types.SimpleNamespace(is_main=True, all_reduce_sum_cpu=lambda x: 2 * x)
    found = reduce_moments(ranks, sums)
    rows = {"first": [a, a], "second": [b, b], "all": [a, a, b, b]}
    for name, parts in rows.items():
        whole = Sums(3)
        whole.add(torch.cat(parts))
        assert found[name].n == whole.n
        assert torch.equal(found[name].mean, whole.moments().mean)
        assert torch.equal(found[name].cov, whole.moments().cov)
    ranks.is_main = False
    assert reduce_moments(ranks, [Sums(3) for _ in range(3)]) is None


def test_a_missing_or_repeated_sample_is_noticed():
    with pytest.raises(RuntimeError, match=r"missing \[2\], twice \[1\]"):
        Ranks(Machine(device="cpu")).gather(np.array([0, 1, 1]), torch.zeros(3, 2), 3)


def test_the_floor_is_the_score_that_new_reals_would_get(particles, tmp_path):
    """bench.floor against the evaluator, which is handed new images as if they were samples."""
    import json

    from bench import floor
    from distgan.core.errors import DistganError
    from distgan.shards.build import command as build_command

    assert (
        build_command.main(
            ["particles", str(tmp_path / "new"), "--n", "20", "--seed", "1", "--workers", "1"]
        )
        == 0
    )
    old, new = Data(str(particles)), Data(str(tmp_path / "new"))
    fresh = (
        torch.cat([*new.chunks(new.train, 16), *new.chunks(new.validation, 16)])[:15].float()
        / 127.5
        - 1
    )
    expected = Evaluator(Ranks(Machine(device="cpu")), old, 15, Choice())(
        lambda numbers: fresh[numbers]
    )
    found = floor.reals(old, new, 15, Choice())
    assert found["score"] == pytest.approx(expected["score"]) and found["nearest"] == pytest.approx(
        expected["nearest"]
    )
    run = tmp_path / "run"
    (run / "eval").mkdir(parents=True)
    (run / "config.yaml").write_text(
        json.dumps({"data": str(particles), "evaluate": {"inception": None}})
    )
    for step, score in (
        (0, 100 * expected["score"]),
        (7, 2 * expected["score"]),
        (9, 3 * expected["score"]),
    ):
        (run / "eval" / f"{step:08d}.json").write_text(
            json.dumps(expected | {"step": step, "epoch": step / 2, "score": score})
        )
    (run / "journal.jsonl").write_text(
        json.dumps({"step": 7, "epoch": 3.5, "valid/overfit": 0.25, "valid/diversity": 0.5}) + "\n"
    )
    lines = floor.table(run, tmp_path / "new")
    assert lines[2].split()[:3] == ["best,", "epoch", "4"] and lines[2].split()[-2:] == [
        "0.25",
        "0.5",
    ]
    assert lines[-1].startswith("best / untrained: 1/50; best / floor: 2.00; 54 training images")
    with pytest.raises(DistganError, match="scores 21 samples, the new data set holds 20 images"):
        floor.reals(old, new, 21, Choice())
