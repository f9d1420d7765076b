"""Stories of the documents, at length: a run that fails and its repair; what the critic learns."""

import pytest
import torch
from processes import line, start

from distgan.config import batch_layout, loading
from distgan.core.clock import Clock
from distgan.data.dataset import Data
from distgan.data.loader import Stream
from distgan.distributed.ranks import Ranks
from distgan.monitor.journal import epoch_means, finite
from distgan.recipes.wgan_flowers import Recipe, Settings
from distgan.runs.history import read_history
from distgan.shards.build import command as build_command


@pytest.fixture(scope="module")
def buried(tmp_path_factory):
    """The pulses of docs/waveform.md, most of them lost in noise."""
    folder = tmp_path_factory.mktemp("buried") / "pulses"
    assert (
        build_command.main(
            [
                "waveform",
                str(folder),
                "--n",
                "440",
                "--length",
                "256",
                "--noise",
                "12",
                "--workers",
                "1",
            ]
        )
        == 0
    )
    return folder


def trained(folder, *words):
    process = start(
        line("distgan"), *words, f"machine.folder={folder}", "sample_every=1000", cwd=folder.parent
    )
    output, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, output[-4000:]
    return read_history(folder)


def test_the_repaired_run_is_healthy(buried, tmp_path):
    history = trained(tmp_path / "run", "waveform", f"data={buried}", "epochs=9")
    met = {criterion.name: criterion.met for criterion in history.criteria}
    assert met.pop("GAN loss of G") is not None  # which is at rest where neither side wins
    assert met == {
        "D loss": True,
        "training and validation L1": True,
        "generalisation gap": True,
        "trivial output": True,
        "warnings": True,
    }


def test_a_collapsed_run_is_no_success(tmp_path):
    """Its score falls 100-fold and more, its losses look well, and all its samples are alike."""
    data = tmp_path / "particles"
    assert build_command.main(["particles", str(data), "--workers", "1"]) == 0
    words = ["ngf=8", "ndf=8", "attention=[8]", "g_lr=4e-4", "d_lr=1.6e-3", "epochs=24"]
    words += ["evaluate.samples=300", "evaluate.schedule=[[null,4]]"]
    history = trained(tmp_path / "run", "sagan", f"data={data}", *words)
    found = history.verdict
    assert found.level == "failed" and "samples are alike" in found.sentence
    assert found.of_state("not met")[:3] == ["diversity", "coverage", "frechet_standin"]
    assert history.status["verdict"] == found.sentence


def test_the_failing_run_is_caught_and_answered(buried, tmp_path):
    history = trained(
        tmp_path / "run",
        "waveform-collapsed",
        f"data={buried}",
        "epochs=32",
        "patience=null",
        "watch.on_trouble=adapt",
    )
    found = [
        (event["event"], event["rule"])
        for event in history.events
        if event["event"] in ("warning", "adapt") and event.get("level") != "note"
    ]
    assert found[:2] == [("warning", "d_loss_low"), ("adapt", "d_loss_low")]
    means = epoch_means(finite(history.rows, "d/loss"), history.rows[-1]["epoch"])
    assert means[:, 1].min() < 0.1 and means[-3:, 1].min() > 2 * means[:, 1].min(), (
        "D loss is on its way back: in its range again at epoch 50"
    )


def settings(*words: str) -> Settings:
    return loading.validate(Settings, {"recipe": "wgan_flowers", "data": "-"}, list(words))


def recipe(*words: str) -> Recipe:
    """In one process, on the CPU."""
    chosen = settings(*words)
    torch.manual_seed(0)
    return Recipe(
        chosen,
        Ranks(chosen.machine.model_copy(update={"device": "cpu"})),
        batch_layout.fit(chosen.batch, 1, 1, chosen.group),
        (3, 64, 64),
    )


@pytest.mark.parametrize(
    "words", [[], ["penalty=10", "optimizer=adam"]], ids=["clipping", "penalty"]
)
def test_the_wasserstein_estimate_falls(words, flowers):
    """It rises while the critic learns what there is to tell apart, and falls as the generator
    follows.
    """
    made = recipe(
        "ngf=8", "ndf=8", "latent=16", "batch=18", "n_critic=2", "g_lr=1e-3", "d_lr=1e-3", *words
    )
    data = Data(str(flowers))
    stream = iter(
        Stream(data, 0, batch_layout.fit(18, 1, 1), 0, torch.device("cpu"), resident_bytes=1 << 30)
    )
    clock = Clock(36, len(data.train))
    estimates = torch.stack(
        [
            made.step([next(stream), next(stream)], clock.at(step))["d/wasserstein"]
            for step in range(240)
        ]
    )
    medians = estimates.reshape(12, 20).median(1).values
    assert medians.argmax() > 0 and medians[-1] < 0.6 * medians.max()
