"""What is left when training is over.

Image files, a line for each, the score of exactly these files; and `distgan generate`.
"""

import csv
import hashlib
import html
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import shard_sets
import torch
from flowers import look_alike
from PIL import Image
from processes import BIN, line, run
from safetensors.torch import load_file
from torch import nn

from distgan.commands import _repairs, generate, report, trained_run
from distgan.config.sections import Machine
from distgan.core import rng
from distgan.core.errors import ConfigError
from distgan.data.dataset import Data
from distgan.data.labels import Labels
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Player
from distgan.evaluation.features.choice import Choice
from distgan.evaluation.features.stand_in import StandIn
from distgan.nn.image import Generator
from distgan.outputs import image_results as results
from distgan.shards.audit import command as audit_command
from distgan.shards.codecs import audio as audio_codec

SMALL = [
    "ngf=4",
    "ndf=4",
    "latent=8",
    "batch=8",
    "g_lr=0.02",
    "ema=0.9",
    "evaluate.samples=8",
    "evaluate.extractor=standin",
    "evaluate.schedule=[[null, 1000]]",
    "validate_every=1000",
    "sample_every=1000",
]
SPECIES = 6
TRAINED = 228  # of 240 images; 12 are held out with --validation 0.05
STEPS = 3


class Critic(nn.Module):
    """The mean of an image, times a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(100.0))

    def forward(self, images):
        return self.weight * images.mean((1, 2, 3))


@pytest.fixture
def ranks() -> Ranks:
    return Ranks(Machine(device="cpu"))


@pytest.fixture
def critic(ranks) -> Player:
    return Player(ranks, Critic(), torch.optim.SGD)


def drawn(numbers: np.ndarray, purpose: str, channels: int = 3) -> torch.Tensor:
    """Images of noise, each from its number."""
    return torch.cat([rng.normal(1, purpose, int(i), (1, channels, 64, 64)) for i in numbers]) / 2


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "result.csv", newline="") as file:
        return list(csv.DictReader(file))


def labels_of(folder: Path) -> dict[str, list] | None:
    """Return the names and counts of the classes that a run was trained on; None without."""
    attempt = json.loads((folder / "attempts" / "000" / "attempt.json").read_text())
    return attempt["data"].get("labels")


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def features(folder: Path) -> torch.Tensor:
    images = [np.asarray(Image.open(path)) for path in sorted((folder / "images").iterdir())]
    return StandIn()(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)).double()


# ---- files
@pytest.mark.parametrize("channels", [1, 3])
def test_files_and_their_lines(tmp_path, ranks, critic, monkeypatch, channels):
    monkeypatch.setattr(results, "ROUND", 32)
    results.write_images(
        tmp_path,
        ranks,
        results.Drawing(lambda numbers, purpose: drawn(numbers, purpose, channels), critic),
        70,
    )
    lines = table(tmp_path)
    assert list(lines[0]) == ["id", "file_name", "critic_score", "sha256"]
    assert [row["id"] for row in lines] == [str(i) for i in range(70)]
    assert [row["file_name"] for row in lines] == [f"images/{i:05d}.png" for i in range(70)]
    assert len(list((tmp_path / "images").iterdir())) == 70
    for i, row in enumerate(lines):
        data = (tmp_path / row["file_name"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        with Image.open(tmp_path / row["file_name"]) as image:
            assert image.mode == ("L" if channels == 1 else "RGB")
            pixels = np.asarray(image).astype(float).reshape(64, 64, channels)
        expected = (
            np.clip(
                (
                    drawn(np.array([i]), "noise/results", channels)[0]
                    .permute(1, 2, 0)
                    .double()
                    .numpy()
                    + 1
                )
                / 2,
                0,
                1,
            )
            * 255
        )
        assert (
            np.abs(pixels - expected).max() <= 0.5 + 1e-4
        )  # [-1, 1] -> [0, 1] -> the nearest of 256 levels
        assert float(row["critic_score"]) == pytest.approx(
            100 * (pixels / 127.5 - 1).mean(), abs=1e-3
        )  # of the file, not of the floats before it


# ---- the score
def test_the_score_is_that_of_the_files_against_all_real_images(tmp_path, ranks, critic, data):
    said = results.write(
        tmp_path, ranks, Data(str(data)), results.Drawing(drawn, critic), 50, Choice()
    )
    assert said == json.loads((tmp_path / "result.json").read_text())
    held = Data(str(data))
    real = StandIn()(
        torch.cat([held.decode(part, range(len(part))) for part in (held.train, held.validation)])
    ).double()
    a, b = real.numpy(), features(tmp_path).numpy()
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert said["score"] == pytest.approx(expected, rel=1e-3)
    assert (said["metric"], said["samples"], said["reals"], said["training"], said["held_out"]) == (
        "frechet_standin",
        50,
        240,
        TRAINED,
        12,
    )
    assert said["nearest"] > 1  # noise is no copy
    assert (
        said["real_halves"]["reals"] == [120, 120]
        and 0 < said["real_halves"]["score"] < said["score"] / 10
    )


@pytest.mark.parametrize("metric", ["fid", "frechet_standin"])
def test_only_a_fid_is_called_good_or_not(
    tmp_path, ranks, critic, data, monkeypatch, capsys, metric
):
    monkeypatch.setattr(StandIn, "metric", metric)
    said = results.write(
        tmp_path, ranks, Data(str(data)), results.Drawing(drawn, critic), 20, Choice()
    )
    assert (said.get("good_below"), said.get("good")) == (
        (50, said["score"] < 50) if metric == "fid" else (None, None)
    )
    assert ("below 50 is called good" in capsys.readouterr().out) == (metric == "fid")


# ---- the whole way, through the commands that users type
@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """240 drawn flowers of six species in the official layout, sharded."""
    root = tmp_path_factory.mktemp("official")
    look_alike(root, SPECIES, each=40)
    said = run(
        [str(BIN / "distgan")],
        "shard",
        "flowers102",
        "flowers",
        "--from",
        "flowers-102",
        "--unofficial",
        "--validation",
        "0.05",
        "--workers",
        "1",
        cwd=root,
    )
    assert (
        "official sets, together: 6 train, 6 val, 228 test" in said
        and f"{TRAINED} train, 12 validation" in said
    )
    return root / "flowers"


WAYS = {
    "clipping": ("distgan", 1, []),
    "conditional": ("accelerate", 2, ["penalty=10", "optimizer=adam", "conditional=true"]),
}


@pytest.fixture(scope="module", params=WAYS)
def trained(request, data, tmp_path_factory) -> tuple[Path, list[str], str]:
    """(run folder, words, output) of 3 steps of 5 critic updates each."""
    launcher, processes, words = WAYS[request.param]
    folder = tmp_path_factory.mktemp(request.param) / "run"
    words = [
        "wgan_flowers",
        f"data={data}",
        f"epochs={STEPS * 5 * 8 / TRAINED:.9f}",
        f"machine.folder={folder}",
        *SMALL,
        *words,
    ]
    return folder, words, run(line(launcher, processes), *words, cwd=folder.parent)


def test_training_ends_with_as_many_files_as_real_images_a_table_and_a_score(trained, data):
    folder, _, said = trained
    rows = [json.loads(text) for text in (folder / "journal.jsonl").read_text().splitlines()]
    assert [row["samples"] for row in rows if "d/loss" in row] == [
        5 * 8 * (1 + i) for i in range(STEPS)
    ]  # a fresh batch for each critic update
    made = folder / "results"
    assert sorted(path.name for path in (made / "images").iterdir()) == [
        f"{i:05d}.png" for i in range(240)
    ]
    assert [row["sha256"] for row in table(made)] == [
        hashlib.sha256((made / row["file_name"]).read_bytes()).hexdigest() for row in table(made)
    ]
    assert len({row["sha256"] for row in table(made)}) == 240, (
        "of an untrained generator many images would be the same gray"
    )
    found = json.loads((made / "result.json").read_text())
    assert (found["metric"], found["samples"], found["reals"]) == ("frechet_standin", 240, 240)
    assert f"240 images: frechet_standin {found['score']:.4g} against all 240 real samples" in said
    assert json.loads((folder / "events.jsonl").read_text().splitlines()[-2])["event"] == "results"
    assert not (folder / ".results").exists() and (folder / "DONE").exists()


def test_the_files_are_of_the_averaged_generator_in_eval_mode(trained):
    """Drawn anew, without the recipe.

    The average's weights and running statistics, noise by number, eval mode.
    """
    folder, _, _ = trained
    event = json.loads((folder / "events.jsonl").read_text().splitlines()[-2])
    tensors = load_file(folder / "checkpoints" / f"{event['step']:08d}" / "networks.safetensors")
    given: tuple[torch.Tensor, ...] = ()
    if recorded := labels_of(folder):
        drawn = Labels.from_record(recorded).draw(0, "noise/results", np.arange(16), "training")
        given = (torch.from_numpy(drawn),)
    classes = len(recorded["names"]) if recorded else 0
    network = Generator(8, 4, 3, (), 8, 8, Ranks(Machine(device="cpu")), classes=classes)
    network.load_state_dict(
        {
            name.removeprefix("G.ema."): value
            for name, value in tensors.items()
            if name.startswith("G.ema.")
        }
    )
    noise = torch.cat([rng.normal(0, "noise/results", i, (1, 8)) for i in range(16)])
    with torch.no_grad():
        images = network.eval()(noise, *given)
    expected = ((images + 1) / 2 * 255).round().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    found = np.stack(
        [np.asarray(Image.open(folder / f"results/images/{i:05d}.png")) for i in range(16)]
    )
    assert (expected != found).mean() < 1e-3 and np.abs(
        expected - found
    ).max() <= 1  # (x + 1) * 127.5 may round otherwise in the last bit


def test_the_files_do_not_depend_on_the_number_of_processes(trained, tmp_path):
    """The same checkpoint, and a run that was killed before it had written its results."""
    folder, words, _ = trained
    before = hashes(folder / "results")
    assert len(before) == 240 + 3
    way, processes = ("torchrun", 2) if "conditional=true" not in words else ("python", 1)
    again = tmp_path / "run"
    shutil.copytree(folder, again)
    shutil.rmtree(again / "results")
    (again / "DONE").unlink()
    (again / ".results").mkdir()
    (again / ".results/half.png").write_text("of a killed attempt")
    run(
        line(way, processes),
        *(word for word in words if not word.startswith("machine.folder")),
        f"machine.folder={again}",
        cwd=tmp_path,
    )
    assert hashes(again / "results") == before


# ---- distgan generate
def test_generate_makes_the_files_of_the_results(trained, tmp_path, data, monkeypatch):
    """And needs no data set."""
    monkeypatch.setattr(Data, "__init__", None)
    folder, _, _ = trained
    assert generate.main([str(folder), "count=40", f"out={tmp_path / 'some'}", "device=cpu"]) == 0
    usual, some = table(folder / "results"), table(tmp_path / "some")
    assert some == usual[:40] and all(
        (tmp_path / "some" / row["file_name"]).is_file() for row in some
    )
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == [
        "generated.json",
        "grid.png",
        "images",
        "result.csv",
    ]


def test_generate_says_what_it_wants(trained, tmp_path, capsys):
    folder, _, _ = trained
    with pytest.raises(
        ConfigError, match="distgan generate: 1 error on the command line:\n  RUN.*: missing; a run"
    ):
        generate.main([])
    for words, said in (
        (
            ["count=0", "size=3"],
            (
                r"(?s)size: no such option.*--n: found '0', allowed: 1 to 1,000,000.*options: --n,"
                r" --out"
            ),
        ),
        (["device=tpu"], "device: found 'tpu'"),
        ([f"out={folder}"], "exists and is not empty, and `distgan generate` did not make it"),
        ([f"from={folder}"], "draws samples from noise"),
        (["truncation=0"], "truncation: found '0', allowed: 0.01 to 10"),
    ):
        with pytest.raises(ConfigError, match=said):
            generate.main([str(folder), *words])
    with pytest.raises(ConfigError, match="^found '.*@7', but there is no checkpoint of step 7"):
        generate.main([f"{folder}@7"])
    with pytest.raises(ConfigError, match="is no run folder with checkpoints"):
        generate.main([str(tmp_path / "nothing")])


def test_generate_goes_on_where_it_was_killed_and_adds_what_is_asked_for(
    trained, tmp_path, capsys, monkeypatch
):
    """A file that is damaged, and those after it, are made again.

    The bytes are those of one undisturbed process, whatever the number of processes.
    """
    monkeypatch.setattr(Data, "__init__", None)
    folder, _, _ = trained
    labels = labels_of(folder)
    chosen = [f"class={labels['names'][2]},{labels['names'][0]}" if labels else "truncation=0.7"]
    whole, out = tmp_path / "whole", tmp_path / "some"
    assert generate.main([str(folder), str(whole), "--n", "70", "--device", "cpu", *chosen]) == 0
    assert generate.main([str(folder), str(out), "--n", "40", "--device", "cpu", *chosen]) == 0
    capsys.readouterr()
    untouched = (out / "images/00000.png").stat().st_mtime_ns
    assert (
        generate.main([str(folder), str(out), "--n", "40", "--device", "cpu", *chosen]) == 0
        and "40 are already there, complete" in capsys.readouterr().out
    )
    (out / "images/00037.png").write_bytes(b"half")
    lines = (out / "result.csv").read_text().splitlines(keepends=True)
    (out / "result.csv").write_text("".join(lines[:39]) + "38,images/0")  # a torn line
    run(
        [
            str(BIN / "torchrun"),
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "distgan",
            "generate",
        ],
        str(folder),
        str(out),
        "n=70",
        "device=cpu",
        *chosen,
        cwd=tmp_path,
    )
    assert (
        hashes(out) == hashes(whole) and (out / "images/00000.png").stat().st_mtime_ns == untouched
    )


def test_generate_refuses_a_folder_of_another_checkpoint(trained, tmp_path):
    folder, _, _ = trained
    out = tmp_path / "out"
    assert generate.main([str(folder), str(out), "--n", "3", "--device", "cpu"]) == 0
    before = hashes(out)
    about = json.loads((out / "generated.json").read_text())
    about["about"]["checkpoint_digest"] = "another"
    (out / "generated.json").write_text(json.dumps(about))
    with pytest.raises(
        ConfigError,
        match="(?s)was made otherwise; nothing was overwritten\n  checkpoint_digest: another there",
    ):
        generate.main([str(folder), str(out), "--n", "5", "--device", "cpu"])
    cut = tmp_path / "cut"
    words = ["--n", "3", "--device", "cpu"]
    assert generate.main([str(folder), str(cut), *words, "--truncation", "1.5"]) == 0
    assert hashes(cut) != before
    with pytest.raises(ConfigError, match="truncation: 1.5 there, None now"):
        generate.main([str(folder), str(cut), *words])
    with pytest.raises(ConfigError, match="as: files there, shards now"):
        generate.main([str(folder), str(out), "--n", "5", "--shards", "yes", "--device", "cpu"])
    assert {name: value for name, value in hashes(out).items() if name != "generated.json"} == {
        name: value for name, value in before.items() if name != "generated.json"
    }


def test_generated_shards_are_a_data_set(trained, tmp_path, monkeypatch):
    """Which `distgan check` finds whole; more of them change none of the full ones."""
    monkeypatch.setattr(generate, "IMAGES_PER_SHARD", 16)
    folder, _, _ = trained
    out = tmp_path / "shards"
    assert (
        generate.main([str(folder), str(out), "--n", "40", "--shards", "yes", "--device", "cpu"])
        == 0
    )
    first = hashes(out)
    found = Data(str(out))
    assert len(found.train) + len(found.validation) == 40 and found.shape == (3, 64, 64)
    assert (
        generate.main([str(folder), str(out), "--n", "40", "--shards", "yes", "--device", "cpu"])
        == 0
        and hashes(out) == first
    )
    assert (
        generate.main([str(folder), str(out), "--n", "56", "--shards", "yes", "--device", "cpu"])
        == 0
    )
    assert (
        sorted(path.name for path in out.glob("*.tar")) == [f"{k:06d}.tar" for k in range(4)]
        and len(Data(str(out)).train) + len(Data(str(out)).validation) == 56
    )
    assert {
        name for name in first if name.endswith(".tar") and hashes(out)[name] == first[name]
    } == {"000000.tar", "000001.tar"}
    assert audit_command.main([str(out)]) in (0, 1)


# ---- distgan generate, of sounds
def test_repaired_sounds_do_not_depend_on_the_number_of_processes(
    recordings, tmp_path, monkeypatch
):
    """Held-out clips, as files and as shards, and a folder of one's own.

    The same line again makes what is missing.
    """
    folder = tmp_path / "run"
    run(
        line("python"),
        "timbre",
        f"data={recordings}",
        f"machine.folder={folder}",
        "machine.device=cpu",
        "epochs=1",
        "segment_length=256",
        "stft_resolutions=[[64,16,64]]",
        "g_width=16",
        "g_fft=64",
        "g_hop=16",
        "d_width=4",
        "batch=6",
        "gan_start_epoch=0",
        cwd=tmp_path,
    )
    one, two = tmp_path / "one", tmp_path / "two"
    assert generate.main([str(folder), str(one), "--device", "cpu"]) == 0
    run(
        [str(BIN / "distgan"), "generate"],
        str(folder),
        str(two),
        "--n",
        "6",
        "--processes",
        "2",
        "--device",
        "cpu",
        cwd=tmp_path,
    )
    assert (
        hashes(one) == hashes(two) and len(list((one / "sounds").iterdir())) == len(table(one)) == 6
    )
    wave, rate = audio_codec.read_wav(next((one / "sounds").iterdir()).read_bytes())
    assert wave.dtype == np.float32 and rate == 8000 and len(wave) == 400
    next((two / "sounds").iterdir()).unlink()
    assert generate.main([str(folder), str(two), "--device", "cpu"]) == 0 and hashes(one) == hashes(
        two
    )
    own = tmp_path / "own"
    assert (
        generate.main(
            [str(folder), str(own), "--from", str(one / "sounds"), "--n", "2", "--device", "cpu"]
        )
        == 0
        and len(table(own)) == 2
    )
    assert {path.name for path in (own / "sounds").iterdir()} < {
        path.name for path in (one / "sounds").iterdir()
    }  # so both can be compared
    shutil.copy(sorted((one / "sounds").iterdir())[-1], sorted((one / "sounds").iterdir())[0])
    with pytest.raises(
        ConfigError, match="of: 6 recordings with sha256 .* at 8000 Hz there, 6 recordings"
    ):
        generate.main([str(folder), str(own), "--from", str(one / "sounds"), "--device", "cpu"])
    other = shard_sets.damaged(tmp_path / "other", 2, held_out=1, frames=[400] * 3)
    with pytest.raises(
        ConfigError, match="of: held-out clips of data .* there, held-out clips of data"
    ):
        generate.main([str(folder), str(one), "--data", str(other), "--device", "cpu"])
    shards = tmp_path / "shards"
    assert generate.main([str(folder), str(shards), "--shards", "yes", "--device", "cpu"]) == 0
    assert (
        [path.name for path in shards.glob("*.tar")] == ["000000.tar"]
        and (shards / "manifest.json").is_file()
        and not (shards / "dataset.json").exists()
    )
    monkeypatch.setattr(_repairs.Sounds, "per_shard", 2)
    shutil.rmtree(shards)
    assert generate.main([str(folder), str(shards), "--shards", "yes", "--device", "cpu"]) == 0
    assert Data(str(shards)).kind == "pair" and len(list(shards.glob("*.tar"))) == 3
    with pytest.raises(ConfigError, match="no such folder"):
        generate.main(
            [
                str(folder),
                str(tmp_path / "new"),
                "--from",
                str(tmp_path / "nothing"),
                "--device",
                "cpu",
            ]
        )


# ---- classes
@pytest.mark.parametrize("trained", ["conditional"], indirect=True)
def test_results_and_scores_of_conditional_networks_are_by_class(trained, tmp_path, capsys):
    """Look-alikes of flowers: results/, grids, the report, and what 2 processes generate and score
    is what one does.
    """
    folder, _, _ = trained
    labels = labels_of(folder)
    names = [name for name, n in zip(labels["names"], labels["counts"], strict=True) if n]
    rows = table(folder / "results")
    drawn = Counter(row["class"] for row in rows)
    assert len(rows) == 240 and drawn.keys() == set(names)
    assert len({float(row["critic_score"]) for row in rows}) > 1
    by_class = json.loads((folder / "results" / "result.json").read_text())["by_class"]
    assert {row["class"]: (row["reals"], row["samples"]) for row in by_class["rows"]} == {
        name: (40, drawn[name]) for name in names
    }
    for row in by_class["rows"]:  # of an untrained generator
        assert row["floor"]["generated"]["score"] > 2 * row["floor"]["real"]["score"] > 0
        assert row["kernel_standin"] > 10 * abs(row["floor"]["real"]["kernel_standin"])
    (newest, *_) = sorted((folder / "samples").glob("*.png"), reverse=True)
    with Image.open(newest) as grid:
        assert grid.size[1] == 65 * SPECIES + 1  # a row of 64 pixels for each class
    assert report.main([str(folder)]) == 0
    page = html.unescape((folder / "report.html").read_text())
    assert f"from the top: {', '.join(names)}." in page
    assert "Scores by class <small>the images in results/" in page
    words, scores = [str(folder), "--n", "60", "--device", "cpu"], []
    for more in (["--processes", "2"], []):
        said = run([str(BIN / "distgan"), "evaluate"], *words, *more, cwd=tmp_path)
        (path,) = (folder / "eval" / "asked").glob("*.json")
        scores.append(json.loads(path.read_text())["by_class"])
    assert scores[0] == scores[1] and sum(row["samples"] for row in scores[0]["rows"]) == 60
    assert "species" in said and "no Fréchet distance below 16 against 16, where" in said
    assert generate.main([str(folder), "--n", "8"]) == 0
    assert report.main([str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "distgan evaluate; real samples against other" in page
    assert f"<figcaption>{next(folder.glob('generated-*')).name}</figcaption>" in page
    shutil.rmtree(next(folder.glob("generated-*")))
    first, second = names[:2]
    capsys.readouterr()
    assert generate.main([str(folder), "--class", f"{first},{second}", "--n", "6"]) == 0
    (made,) = folder.glob("generated-*")
    assert [row["class"] for row in table(made)] == [first, second] * 3
    before = hashes(made)
    assert generate.main([str(folder), "--class", f"{first},{second}", "--n", "6"]) == 0
    assert hashes(made) == before
    _, settings = trained_run.settings(folder, "cpu")
    other = Data(settings.data)
    trained_run.require_classes(other, settings, folder)
    other.labels = Labels("species", ("rose", *labels["names"][1:]), tuple(labels["counts"]))
    with pytest.raises(ConfigError, match="has other classes of species than the run.*pink primr"):
        trained_run.require_classes(other, settings, folder)
    one, rows = tmp_path / "one", tmp_path / "rows"
    between = ["--interpolate", f"{first},{second}", "--device", "cpu"]
    assert generate.main([str(folder), str(rows), *between, "--n", "24"]) == 0
    assert [row["class"] for row in table(rows)][6:10] == [
        f"{first} 0.14, {second} 0.86",
        f"{second} 1.00",
        f"{first} 1.00",
        f"{first} 0.86, {second} 0.14",
    ]
    assert generate.main([str(folder), str(one), "--class", first, "--n", "3"]) == 0
    for row in range(3):  # which begins with the image of the first class
        begins = np.asarray(Image.open(rows / f"images/{8 * row:05d}.png")).astype(int)
        alone = np.asarray(Image.open(one / f"images/{row:05d}.png")).astype(int)
        assert np.abs(begins - alone).max() <= 1
    with Image.open(rows / "grid.png") as grid:
        assert grid.size == (8 * 65 + 1, 3 * 65 + 1)
    for more, said in (
        (["--interpolate", first], "name two classes"),
        ([*between, "--class", first], "leave --class out"),
        (["--interpolate", f"{first},nothing"], "no class 'nothing' in the column 'species'"),
    ):
        with pytest.raises(ConfigError, match=said):
            generate.main([str(folder), *more])
    with pytest.raises(ConfigError, match="no class 'nothing' in the column 'species'"):
        generate.main([str(folder), "--class", f"{first},nothing", "--processes", "9"])  # at once
