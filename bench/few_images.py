"""Adaptive augmentation against none, on 100 training images: curves.

python -m bench.few_images FOLDER [--epochs 1200] [--out OUT.png]

Two runs of `sagan` on drawn shapes of 32x32, trained in legs of `EVERY` epochs. After each leg
1,000 samples are compared with 5,000 images of which neither has seen one. The figure shows r_v of
D on held-out images, the Fréchet distance with its floor, and the strength of the augmentation. A
run that is there goes on.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from distgan.monitor.journal import epoch_means, finite, read_journal
from distgan.outputs import signal_plots as figures

EVERY = 100  # epochs
WAYS = {"none": [], "ada": ["ada=true", "ada_kimg=20"]}
SETTINGS = ["ngf=16", "ndf=16", "batch=16", "attention=[]", "hflip=0", "vflip=0", "ema=0.999"]
SETTINGS += ["lr_every=null", "validate_every=10", "evaluate.schedule=[[null,1e6]]"]
SETTINGS += ["evaluate.extractor=standin"]


def distgan(*words: object) -> None:
    command = [sys.executable, "-m", "distgan", *map(str, words)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def measure(folder: Path, way: str, epochs: int) -> None:
    """Train in legs, and score the network at the end of each."""
    for epoch in range(EVERY, epochs + 1, EVERY):
        score = folder / f"{way}-{epoch}.json"
        if score.exists():
            continue
        run, samples = folder / way, folder / f"samples-{way}-{epoch}"
        words = [f"data={folder / 'few'}", f"machine.folder={run}", "machine.device=cpu"]
        distgan("train", "sagan", *words, *SETTINGS, *WAYS[way], f"epochs={epoch}")
        distgan("generate", f"{run}@last", samples, "--n", 1000, "--device", "cpu")
        sets = ["--real", folder / "many", "--fake", samples / "images", "--extractor", "standin"]
        distgan("evaluate", *sets, "--metrics", "frechet,kernel", "--out", score)


def draw(folder: Path, epochs: int, path: Path) -> None:
    with mpl.rc_context({**figures.STYLE, "grid.alpha": 0.3}):
        figure = Figure(figsize=(10, 3), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        overfit, distance, strength = figure.subplots(1, 3)
        for way in WAYS:
            rows = read_journal(folder / way / "journal.jsonl")
            overfit.plot(*finite(rows, "valid/overfit").T, label=way)
            scores = sorted(
                (int(file.stem.rpartition("-")[2]), json.loads(file.read_text()))
                for file in folder.glob(f"{way}-*.json")
            )
            at, found = zip(*scores, strict=True)
            distance.plot(at, [score["score"] for score in found], label=way)
            if way == "ada":
                strength.plot(*epoch_means(finite(rows, "d/ada"), epochs).T, color="C1")
        distance.axhline(found[0]["floor"]["real"]["score"], ls=":", color="gray", label="floor")
        distance.set_yscale("log")
        distance.set_yticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
        distance.yaxis.set_minor_locator(NullLocator())
        overfit.set_title("overfitting of D (r_v)")
        distance.set_title("Fréchet distance (stand-in)")
        strength.set_title("strength p")
        for ax in (overfit, distance, strength):
            ax.set_xlabel("epoch")
        distance.legend()
        figures.save(path, figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=1200)
    parser.add_argument("--out", type=Path, default=Path("augmentation.png"))
    args = parser.parse_args()
    distgan("shard", "shapes", args.folder / "few", "--n", 200, "--validation", 0.5)
    distgan("shard", "shapes", args.folder / "many", "--seed", 1)
    for way in WAYS:
        measure(args.folder, way, args.epochs)
    draw(args.folder, args.epochs, args.out)


if __name__ == "__main__":
    main()
