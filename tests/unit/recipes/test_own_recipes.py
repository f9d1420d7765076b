"""Recipes of one's own that differ from distgan's: other players, and parts left out."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distgan import train
from distgan.commands import _repairs, evaluate, generate, report
from distgan.core.errors import ConfigError, RunError
from distgan.data.dataset import Data
from distgan.data.loader import MicroBatch
from distgan.data.transforms import to_waves
from distgan.distributed.ranks import Ranks
from distgan.monitor.decisions import rollback_decision
from distgan.monitor.settings import Watch
from distgan.outputs.image_grid import load, save_grid
from distgan.recipes import _catalog
from distgan.recipes._base import apply_settings
from distgan.recipes._own_code import unload

IMAGE, PAIR, IMAGE_PAIR, VECTOR = (
    (Path(_catalog.__file__).parent / "templates" / f"{kind}.py").read_text()
    for kind in ("image", "pair", "image_pair", "vector")
)
TINY = ["machine.device=cpu", "machine.folder=run", "width=4", "batch=6", "epochs=0.2"]
# Two generators and two discriminators, none of them G or D.
CYCLE = """
class Settings(api.Run):
    kind = "pair"
    judged_by = "valid/l1"
    batch: int = 6
    epochs: float = 0.2
    ab_lr: float = 1e-3

class Recipe:
    def __init__(self, run, ranks, layout, shape):
        self.run, self.dtype = run, ranks.dtype
        nets = {"AB": generator(4), "BA": generator(4), "DA": critic(), "DB": critic()}
        adam = partial(torch.optim.Adam, lr=1e-3)
        self.players = {name: api.Player(ranks, net, adam, ema=0.9) for name, net in nets.items()}

    def step(self, batches, now):
        logs = {"da": self.players["DA"].update(partial(self.judge, "BA", "DA", 0), batches[0], 0),
                "db": self.players["DB"].update(partial(self.judge, "AB", "DB", 1), batches[0], 0),
                "ab": self.players["AB"].update(partial(self.map, "AB", "DB", 0), batches[0], 0),
                "ba": self.players["BA"].update(partial(self.map, "BA", "DA", 1), batches[0], 0)}
        return api.step_log(**logs)

    def judge(self, g, d, real, micro):
        pair = api.to_waves(micro.real, self.dtype).split(1, 1)
        fake = self.players[g].generate(pair[1 - real])
        real, fake = self.players[d](torch.cat([pair[real], fake])).chunk(2)
        return api.d_hinge(real, fake), {}

    def map(self, g, d, given, micro):
        pair = api.to_waves(micro.real, self.dtype).split(1, 1)
        with self.players[d].frozen() as judge:
            return api.g_hinge(judge(self.players[g](pair[given]))), {}

    def repairer(self):
        return lambda x: api.repair(self.players["AB"], x)
"""
CYCLE = (
    PAIR[: PAIR.index("class Settings")]
    + PAIR[PAIR.index("def generator") : PAIR.index("def discriminator")]
    + "def critic():\n    return nn.Conv1d(1, 1, 9, 4, bias=False)\n"
    + CYCLE
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    unload()


def changed(text, *pairs):
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    Path("mine.py").write_text(text)
    return "mine.py"


@pytest.mark.gate
def test_players_of_other_names_train_generate_evaluate_and_report(pulses, capsys):
    words = [changed(CYCLE), f"data={pulses}", *TINY[:2]]
    assert train.main(words) == 0
    assert generate.main(["run", "made", "--n", "2"]) == 0
    assert evaluate.main(["run"]) == 0
    assert report.main(["run"]) == 0
    page = Path("run/report.html").read_text()
    assert all(f">{name}<" in page for name in ("AB", "BA", "DA", "DB"))
    module, run, _ = train.plan(words)
    recipe = module.Recipe(run, Ranks(run.machine), None, None)
    apply_settings(recipe, run.model_copy(update={"ab_lr": 0.5}))
    rates = {name: player._rates for name, player in recipe.players.items()}
    assert rates == {"AB": [0.5], "BA": [1e-3], "DA": [1e-3], "DB": [1e-3]}


@pytest.mark.gate
def test_a_recipe_without_scores_samples_and_rates_trains(particles, capsys):
    text = IMAGE[: IMAGE.index("    def sample(")]
    lines = [
        line
        for line in text.splitlines()
        if not line.startswith(("    evaluate:", "    g_lr:", "    d_lr:"))
    ]
    text = "\n".join(lines).replace("run.g_lr", "1e-4").replace("run.d_lr", "1e-4") + "\n"
    assert train.main([changed(text), f"data={particles}", *TINY]) == 0
    assert not list(Path("run/samples").iterdir()) and report.main(["run"]) == 0
    module, run, _ = train.plan(["mine.py", f"data={particles}", *TINY])
    recipe = module.Recipe(run, Ranks(run.machine), None, (1, 64, 64))
    apply_settings(recipe, run)
    with pytest.raises(ConfigError, match="has no method `sample`; give its class Recipe one"):
        generate.main(["run", "made"])


@pytest.mark.gate
def test_vectors_without_a_picture_and_a_score_train_and_report(gaussians):
    text = VECTOR[: VECTOR.index("    def show(")].replace("    evaluate:", "    # evaluate:")
    (path := Path("mine.py")).write_text(text)
    assert train.main([str(path), f"data={gaussians}", *TINY]) == 0
    assert not list(Path("run/samples").iterdir()) and report.main(["run"]) == 0
    assert generate.main(["run", "made", "--n", "3"]) == 0
    assert np.load("made/samples.npy").shape == (3, 2)
    with pytest.raises(ConfigError, match="which is judged by no score of samples"):
        evaluate.main(["run"])
    call = "return api.sample_from_noise(self.G, numbers, self.run.seed, purpose, self.run.latent)"
    wrong = changed(text, (call, f"{call}[:, :1]"))
    with pytest.raises(ConfigError, match=r"sample returns a tensor of shape \[2, 1\]"):
        train.main([wrong, f"data={gaussians}", *TINY, "machine.folder=other"])


@pytest.mark.gate
def test_what_the_settings_promise_must_be_there(particles, pulses):
    no_sample = IMAGE[: IMAGE.index("    def sample(")]
    with pytest.raises(ConfigError, match="mine has no method `sample`.* leave `evaluate` out"):
        train.main([changed(no_sample), f"data={particles}", *TINY])
    other = changed(PAIR, ('judged_by = "valid/l1"', 'judged_by = "valid/l2"'))
    with pytest.raises(RunError, match="valid/l2 finds the best .* valid/l1, valid/input_l1"):
        train.main([other, f"data={pulses}", *TINY])


@pytest.mark.gate
def test_a_generator_alone_gives_images_without_scores(particles, capsys):
    text = changed(IMAGE, ('{"G": self.G, "D": self.D}', '{"G": self.G, "Critic": self.D}'))
    words = [text, f"data={particles}", *TINY, "evaluate.samples=8"]
    assert train.main([*words, "epochs=0.1"]) == 0
    assert generate.main(["run@last", "young", "--n", "1"]) == 0
    assert "warning: 18% of the average of G's weights is" in (said := capsys.readouterr().out)
    assert "network: 1 update, and the half-life of the average is 692.8 of them" in said
    assert train.main(words) == 0
    assert generate.main(["run", "made", "--n", "3"]) == 0
    rows = list(csv.DictReader(Path("made/result.csv").read_text().splitlines()))
    assert [row["critic_score"] for row in rows] == ["nan"] * 3


@pytest.mark.gate
def test_validation_of_pairs_is_the_mean_over_pairs(pulses):
    assert train.main([changed(PAIR), f"data={pulses}", *TINY]) == 0
    rows = [json.loads(line) for line in Path("run/journal.jsonl").read_text().splitlines()]
    found = [row for row in rows if "valid/l1" in row]
    data = Data(str(pulses))
    given, target = to_waves(torch.cat(list(data.chunks(data.validation, 4)))).double().unbind(1)
    usual = (given - target).abs().mean().item()
    assert len(found) == 2 and all(abs(row["valid/input_l1"] - usual) < 1e-9 for row in found)
    score = [row["eval/l1"] for row in rows if "eval/l1" in row]
    assert score == [row["valid/l1"] for row in found]


@pytest.mark.gate
def test_image_pairs_are_validated_and_generated_alike(negatives, particles):
    """By the files that are generated, whose values are rounded to 8 bits."""
    assert train.main([changed(IMAGE_PAIR), f"data={negatives}", *TINY]) == 0
    rows = [json.loads(line) for line in Path("run/journal.jsonl").read_text().splitlines()]
    found = [row for row in rows if "valid/l1" in row][-1]
    data = Data(str(negatives))
    given, target = data.decode(data.validation, range(6)).unbind(1)
    assert generate.main(["run@last", "made"]) == 0
    Path("inputs").mkdir()
    for i, image in enumerate(given):
        save_grid(Path(f"inputs/{i}.png"), image[None], columns=1)
        pixels = np.asarray(Image.open(f"inputs/{i}.png"))[1:-1, 1:-1]
        Image.fromarray(pixels).save(f"inputs/{i}.png")
    assert generate.main(["run@last", "again", "--from", "inputs"]) == 0
    files = sorted(Path("made/images").glob("*.png")), sorted(Path("again/images").glob("*.png"))
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    gap = (load(files[0]).double() - target.double()) / 127.5
    assert found["valid/l1"] == pytest.approx(gap.abs().mean().item(), rel=5e-3)
    psnr = 10 * np.log10(4 / gap.square().mean((1, 2, 3)).numpy())
    assert found["valid/psnr"] == pytest.approx(psnr.mean(), rel=5e-3)
    usual = (given.double() - target.double()).abs().mean().item() / 127.5
    assert found["valid/input_l1"] == pytest.approx(usual, rel=1e-6)
    with pytest.raises(ConfigError, match="trains on image pairs, this data set holds images"):
        generate.main(["run@last", "other", "--data", str(particles)])
    Path("inputs/a\rb.png").write_bytes(Path("inputs/0.png").read_bytes())
    Path(os.fsdecode(b"inputs/\xff.png")).write_bytes(Path("inputs/0.png").read_bytes())
    assert generate.main(["run@last", "hostile", "--from", "inputs"]) == 0
    assert len(list(Path("hostile/images").glob("*.png"))) == 8


def test_images_to_repair_are_scaled_as_those_of_the_data_set(negatives):
    entry = json.loads((negatives / "dataset.json").read_text())
    shutil.copytree(negatives, "ranged")
    entry["options"]["range"] = [0, 4095]
    Path("ranged/dataset.json").write_text(json.dumps(entry))
    size = entry["sample"]["size"]
    Path("deep").mkdir()
    Image.fromarray(np.full((size, size), 4095, np.uint16)).save("deep/a.png")
    maxima = []
    for folder in ("ranged", negatives):
        kind = _repairs.Images(Data(str(folder)), lambda x: x, torch.device("cpu"), Path("deep"))
        maxima.append(int(kind._read(Path("deep/a.png")).max()))
    assert maxima == [255, 16]


@pytest.mark.parametrize("name", ["group", "_fits"])
def test_a_fault_in_code_of_the_settings_is_one_message(name):
    mark = "@property" if name == "group" else "@pydantic.model_validator(mode='after')"
    method = f"    {mark}\n    def {name}(self):\n        return 1 / 0\n\n    watch:"
    text = changed(
        IMAGE, ("    watch:", method), ("import torch\nfrom", "import pydantic, torch\nfrom")
    )
    with pytest.raises(ConfigError, match=r"mine\.py:\d+: ZeroDivisionError: division by zero$"):
        train.plan([text, "data=d"])


@pytest.mark.gate
def test_a_fault_that_other_settings_bring_out_is_one_message(particles):
    """The check has passed with those of another run."""
    text = IMAGE.replace(
        "self.run, self.dtype", "run.width == 8 and run.x\n        self.run, self.dtype"
    )
    Path("my_gan.py").write_text(text)
    words = ["my_gan.py", f"data={particles}", *TINY, "--dry-run"]
    assert train.main(words) == 0
    with pytest.raises(ConfigError, match=r"my_gan\.py:\d+: AttributeError: .*'x'"):
        train.main([*words, "width=8"])


@pytest.mark.gate
def test_a_copy_of_the_code_that_was_lost_is_written_again(particles, capsys):
    Path("my_gan.py").write_text(IMAGE)
    words = ["my_gan.py", f"data={particles}", *TINY]
    assert train.main(words) == 0
    (copy,) = Path("run/recipe").iterdir()
    for harm in (copy.unlink, lambda: copy.write_bytes(b"PK")):
        harm()
        with pytest.raises(ConfigError):
            _catalog.resolve_recipe("run/config.yaml")
        assert train.main(words) == 0
        assert _catalog.resolve_recipe("run/config.yaml")[1]["recipe"] == "my_gan"
    unload()
    Path("my_gan.py").write_text(IMAGE.replace("api.d_hinge(", "2 * api.d_hinge("))
    capsys.readouterr()
    with pytest.raises(RunError, match="my_gan has changed since the run in run was"):
        train.main(words)
    assert "checking" not in capsys.readouterr().out  # which takes seconds


def test_a_rollback_halves_the_rate_of_every_player():
    values = {"g_lr": 2e-4, "d1_lr": 1e-3, "ab_lr": None, "lr_end": 0.5, "batch": 4}
    values |= {"anneal_lr": "cosine", "two_lr": True}  # no rates
    decision = rollback_decision("nonfinite", Watch(), values, {}, 1.0)
    assert decision.changes == {"g_lr": 1e-4, "d1_lr": 5e-4}


def test_factors_of_dropout_belong_to_the_place_in_the_stream():
    def factors(at):
        at = np.asarray(at)
        micro = MicroBatch(torch.zeros(len(at), 1), at, at, slice(0, len(at)), 0)
        return micro.dropout(1, "dropout/g", 50, 0.25)

    whole = factors(range(8))
    assert torch.equal(whole, torch.cat([factors(range(4)), factors(range(4, 8))]))
    assert set(whole.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert 0.15 < (whole == 0).float().mean() < 0.35


@pytest.mark.gate
def test_code_that_does_not_fit_the_checkpoint_is_not_accepted(particles):
    words = [f"data={particles}", *TINY[:-1], "machine.self_check=false"]
    assert train.main([changed(IMAGE), *words, "epochs=0.2"]) == 0
    identity = Path("run/identity.json").read_text()
    other = changed(IMAGE, ("3, padding=1", "5, padding=2"))
    with pytest.raises(RunError, match="does not fit this network"):
        train.main([other, *words, "epochs=0.4", "code=accept"])
    assert Path("run/identity.json").read_text() == identity
    assert '"code"' not in Path("run/events.jsonl").read_text()
