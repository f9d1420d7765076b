"""Run folders of pairs as the trainer leaves them, invented: no training, no torch."""

import json
import math
import random
import struct

import numpy as np
import yaml
from PIL import Image

from distgan.outputs import signal_plots as figures

RATE = 8000


def clip(k, n=4000):
    """A decaying tone with overtones, float64 [n]."""
    t = np.arange(n) / RATE
    return (
        0.4
        * np.exp(-2 * t)
        * sum(np.sin(2 * np.pi * (110 + 20 * k) * h * t) / h for h in range(1, 9))
    )


def wav(path, wave):
    data = (np.clip(wave, -1, 1) * 32767).astype("<i2").tobytes()
    path.write_bytes(
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
        + b"data"
        + struct.pack("<I", len(data))
        + data
    )


def invent_pair(
    folder,
    recipe="waveform",
    epochs=30,
    per_epoch=8,
    start=0,
    pictures=3,
    sound=False,
    results=False,
    quiet=False,
    drawn=False,
):
    """A run whose L1 falls, with a gap that opens; unless `quiet`, `watch` halves d_lr at a third
    and goes back at half.

    `start`: epoch from which there is a GAN loss; `drawn`: real pictures, which take their time.
    """
    for name in ("samples", "eval", "checkpoints/00000240", "attempts/000"):
        (folder / name).mkdir(parents=True)
    key = "l1" if recipe == "waveform" else "stft"
    config = {
        "recipe": recipe,
        "data": "shards/pairs",
        "batch": 16,
        "epochs": epochs,
        "g_lr": 2e-4,
        "d_lr": 1e-4,
        "lambda_l1": 10,
        "real_label": 0.9,
        "fake_label": 0.1,
        "watch": {"healthy": {"d/loss": [0.2, 0.7]}, "d_loss_weak": 1.0, "on_trouble": "adapt"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "overrides.yaml").write_text("watch: {on_trouble: adapt}")
    (folder / "identity.json").write_text(
        json.dumps({"id": "5e6f7a8b", "settings": config, "data": "0123456789abcdef"})
    )
    (folder / "attempts/000/attempt.json").write_text(
        json.dumps(
            {
                "started": "2026-03-01T10:00:00+00:00",
                "ended": "2026-03-01T10:20:00+00:00",
                "argv": ["distgan", "train", recipe],
                "processes": 1,
                "peak_memory_mb": 812.5,
                "data": {"kind": "pair", "train": 128, "validation": 24},
                "batch": {"global": 16, "ranks": 1, "accumulation": 1, "per_rank": 16},
                "device": "cpu",
            }
        )
    )
    draw, rows, changed = random.Random(2), [], False
    for i in range(epochs * per_epoch):
        step, epoch = i + 1, (i + 1) / per_epoch
        at = {"step": step, "samples": 16 * step, "epoch": epoch}
        l1 = 0.45 * math.exp(-epoch / 12) + 0.05
        row = at | {
            "seconds": 4.0 * i,
            "g/l1": l1 * draw.uniform(0.9, 1.1),
            "g/lr": 2e-4,
            "g/grad_norm": draw.uniform(0.5, 1),
            "samples_per_second": 40.0,
        }
        if recipe == "timbre":
            row["g/stft"] = 1.5 * l1 * draw.uniform(0.9, 1.1)
        row["g/loss"] = 10 * row["g/l1"]
        if epoch > start:
            row |= {
                "d/loss": (0.15 if epoch < epochs / 3 else 0.4) * draw.uniform(0.7, 1.3),
                "d/real_score": draw.uniform(0.6, 0.9),
                "d/fake_score": draw.uniform(0.1, 0.4),
                "g/adversarial": 0.7 + 0.1 * math.sin(epoch) + draw.uniform(-0.05, 0.05),
                "d/lr": 5e-5 if changed else 1e-4,
                "d/grad_norm": draw.uniform(0.5, 2),
            }
            row["g/loss"] += row["g/adversarial"]
        rows.append(row)
        if step % per_epoch == 0:
            valid = {"valid/l1": l1 + 0.005 * epoch}
            if epoch > start:
                valid |= {"valid/adversarial": 0.75 + 0.05 * math.sin(epoch), "valid/d_loss": 0.45}
            if recipe == "timbre":
                valid |= {
                    "valid/stft": 1.5 * l1,
                    "valid/si_sdr": 12 - 20 * l1,
                    "valid/lsd": 4 + 9 * l1,
                    "valid/input_l1": 0.3,
                    "valid/input_stft": 0.6,
                    "valid/input_si_sdr": 5.0,
                    "valid/input_lsd": 8.0,
                }
            rows.append(at | valid)
            rows.append(at | {f"eval/{key}": valid[f"valid/{key}"]})
        if step == epochs * per_epoch // 3 and not quiet:
            rows.append(at | {"adapt/d_lr": 5e-5})
            changed = True
    events = [
        {"time": "2026-03-01T10:00:01+00:00", "event": "start", "step": 0},
        {
            "time": "2026-03-01T10:06:00+00:00",
            "event": "warning",
            "step": 70,
            "epoch": 8.75,
            "rule": "d_loss_low",
            "message": "D loss 0.04",
            "advice": "d_lr 1e-4→5e-5",
        },
        {
            "time": "2026-03-01T10:07:00+00:00",
            "event": "adapt",
            "step": epochs * per_epoch // 3,
            "epoch": epochs / 3,
            "rule": "d_loss_low",
            "changes": {"d_lr": 5e-5},
            "moves": "d_lr 1e-4→5e-5",
        },
        {
            "time": "2026-03-01T10:12:00+00:00",
            "event": "rollback",
            "step": 120,
            "epoch": epochs / 2,
            "rule": "nonfinite",
            "changes": {"g_lr": 1e-4, "d_lr": 2.5e-5},
            "moves": "g_lr 2e-4→1e-4, d_lr 5e-5→2.5e-5",
            "from_step": 150,
            "to_step": 120,
        },
    ][: 1 if quiet else 4]
    last, best = (
        rows[-1],
        min((row for row in rows if f"eval/{key}" in row), key=lambda row: row[f"eval/{key}"]),
    )
    (folder / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "status.json").write_text(
        json.dumps(
            {
                "state": "done",
                "step": last["step"],
                "samples": last["samples"],
                "epoch": last["epoch"],
                "heartbeat": "2026-03-01T10:20:00+00:00",
                "best": {
                    "step": best["step"],
                    "epoch": best["epoch"],
                    "score": best[f"eval/{key}"],
                    "metric": key,
                },
            }
        )
    )
    (folder / "eval/00000240.json").write_text(
        json.dumps(
            {"metric": key, "score": last[f"eval/{key}"], "samples": 24, "step": last["step"]}
        )
    )
    for n in range(pictures):
        step = n * last["step"] // max(pictures - 1, 1)
        draw_clips(folder / f"samples/{step:08}.png", recipe if drawn else None, 0.5**n)
        if sound:
            for k in range(2):
                for name, wave in versions(k, 0.5**n).items():
                    wav(folder / f"samples/{step:08}.speaker{k}_{k:03}.{name}.wav", wave)
    if results:
        (folder / "results").mkdir()
        for k in range(6):
            draw_clips(folder / f"results/speaker{k}.png", recipe if drawn else None, 0.1, [k])
        (folder / "results/measures.csv").write_text(
            "key,l1,si_sdr\n" + "".join(f"speaker{k},0.0{k + 1},{8 + k}.5\n" for k in range(40))
        )
    return folder


def versions(k, wrong):
    noise = np.random.default_rng(k).normal(0, 0.05, 4000)
    return {
        "before": 0.6 * clip(k) + noise,
        "after": clip(k) + wrong * 0.5 * noise,
        "clean": clip(k),
    }


def draw_clips(path, recipe, wrong, which=(0, 1, 2)):
    if recipe is None:
        Image.new("RGB", (1020, 300), (0, 0, int(255 * wrong))).save(path)
        return
    made = {k: versions(k, wrong) for k in which}
    if recipe == "waveform":
        figures.overlay(
            path,
            [(f"clip{k}", one["before"], one["clean"], one["after"]) for k, one in made.items()],
            RATE,
        )
    else:
        figures.spectrograms(
            path,
            [
                [(f"speaker{k} {name}  SI-SDR 8.1 dB", wave) for name, wave in one.items()]
                for k, one in made.items()
            ],
            RATE,
        )
