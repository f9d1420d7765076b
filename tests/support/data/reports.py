"""A finished run folder of images as the trainer leaves it, its report, and a reader of the
page.
"""

import json
import math
import random
from html.parser import HTMLParser

import yaml
from PIL import Image, ImageDraw

from distgan.commands import report

VOID = {"meta", "br", "img", "input"}


TRAINING = {
    "d/loss": 0.65,
    "d/real_prob": 0.66,
    "d/fake_prob": 0.32,
    "g/loss": 1.1,
    "g/fake_prob": 0.33,
    "d/grad_norm": 0.6,
    "g/grad_norm": 0.8,
}


def invent(folder, lines=60, epochs=600, grids=10, side=64, overrides=None):
    """A run folder as the trainer leaves it.

    A score that falls, D a little too sure of itself at the end.
    """
    folder.mkdir(parents=True)
    overrides = overrides or {"ngf": 96}
    config = {
        "recipe": "sagan",
        "data": "shards/particles",
        "seed": 0,
        "batch": 16,
        "epochs": epochs,
        "ngf": 64,
        "ndf": 64,
        "latent": 128,
        "g_lr": 2e-4,
        "d_lr": 2e-4,
        "betas": [0.0, 0.9],
        "clip": 1.0,
        "real_label": 0.9,
        "ema": 0.9999,
        "evaluate": {"samples": 500, "every": [10, 20, 50]},
        "watch": {"score_flat_epochs": 100},
        "machine": {"workers": 2},
    } | overrides
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    (folder / "identity.json").write_text(
        json.dumps(
            {"id": "1a2b3c4d", "settings": config, "data": "0123456789abcdef-fedcba9876543210"}
        )
    )
    draw, rows, events, best = random.Random(1), [], [], None
    for i in range(lines):
        epoch, t = (i + 1) * epochs / lines, (i + 1) / lines
        at = {
            "step": int(epoch * 18),
            "samples": int(epoch * 18) * 16,
            "epoch": epoch,
            "seconds": 4.0 * i,
        }
        row = at | {key: value * draw.uniform(0.8, 1.2) for key, value in TRAINING.items()}
        row["d/loss"] *= 1.6 - t
        row["g/loss"] *= 0.7 + 1.2 * t + 0.3 * math.sin(9 * t)
        row |= {
            "d/lr": 2e-4 * 0.5 ** (epoch // 200),
            "g/lr": 2e-4 * 0.5 ** (epoch // 200),
            "samples_per_second": draw.uniform(180, 220),
        }
        rows.append(row)
        if i % 10 == 9:
            score = 30 + 350 * math.exp(-6 * t) * draw.uniform(0.8, 1.2)
            rows.append(
                at
                | {
                    "eval/frechet_standin": score,
                    "valid/d_loss": 0.7,
                    "valid/g_loss": 1.0,
                    "valid/real_prob": 0.62 - 0.3 * t,
                    "valid/train_prob": 0.65,
                    "valid/fake_prob": 0.3,
                    "valid/overfit": (0.03 + 0.3 * t) / 0.35,
                }
            )
            if best is None or score < best["score"]:
                best = {key: at[key] for key in ("step", "samples", "epoch")} | {
                    "score": score,
                    "metric": "frechet_standin",
                }
                events.append(
                    {
                        "time": "2026-03-01T12:00:00+00:00",
                        "event": "best",
                        "step": at["step"],
                        "score": round(score, 3),
                    }
                )
    (folder / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    last = rows[-1]
    (folder / "status.json").write_text(
        json.dumps(
            {
                "state": "done",
                "cause": None,
                "attempt": 1,
                "step": last["step"],
                "samples": last["samples"],
                "epoch": last["epoch"],
                "best": best,
                "heartbeat": "2026-03-01T14:00:00+00:00",
                "pid": 1,
                "host": "node1",
            }
        )
    )
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    for number, (start, end, cause) in enumerate(
        [("10:00", None, None), ("12:30", "14:00", "done")]
    ):
        (folder / f"attempts/{number:03}").mkdir(parents=True)
        (folder / f"attempts/{number:03}/attempt.json").write_text(
            json.dumps(
                {
                    "started": f"2026-03-01T{start}:00+00:00",
                    "ended": end and f"2026-03-01T{end}:00+00:00",
                    "cause": cause,
                    "host": "node1",
                    "argv": ["distgan", "train", "sagan.yaml", "ngf=96"],
                    "processes": 2,
                    "data": {"train": 297, "validation": 33},
                    "device": "cpu",
                    "git": {"commit": "d101ff5" * 5, "dirty": True},
                    "batch": {"global": 16, "ranks": 2, "accumulation": 1, "per_rank": 8},
                    "versions": {"torch": "2.11.0", "numpy": "2.3.0"},
                }
            )
        )
    (folder / "eval").mkdir()
    (folder / f"eval/{last['step']:08}.json").write_text(
        json.dumps(
            {
                "metric": "frechet_standin",
                "score": 31.0,
                "samples": 500,
                "reals": 297,
                "extractor": "seeded stand-in",
                "step": last["step"],
                "epoch": epochs,
            }
        )
    )
    (folder / "samples").mkdir()
    for n in range(grids):
        grid(draw, n / max(grids - 1, 1), side).save(
            folder / f"samples/{int(n * epochs / max(grids - 1, 1) * 18):08}.png"
        )
    for step in (last["step"] // 2, last["step"]):
        (folder / f"checkpoints/{step:08}").mkdir(parents=True)
        (folder / f"checkpoints/{step:08}/networks.safetensors").write_bytes(bytes(100_000))
    (folder / "DONE").touch()
    return folder


def grid(draw, t, side):
    """8x8 images: noise at first, particle tracks later."""
    image = Image.effect_noise((8 * side, 8 * side), 90 * (1 - t) + 8).point(
        lambda v: int(v * (1 - 0.8 * t))
    )
    pen = ImageDraw.Draw(image)
    for cell in range(64):
        x, y = cell % 8 * side, cell // 8 * side
        for _ in range(int(4 * t)):
            ends = [
                (x + draw.uniform(4, side - 4), y + draw.uniform(4, side - 4)) for _ in range(2)
            ]
            pen.line(ends, fill=int(255 * t), width=max(side // 32, 1))
    return image


def page_of(folder):
    assert report.main([str(folder)]) == 0
    return (folder / "report.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Checks that every element is closed in order; keeps tags, links and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [
            value for key, value in attrs if key.split(":")[-1] in ("src", "href", "action", "data")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        self.text += data
