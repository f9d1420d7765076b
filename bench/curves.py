"""Losses of runs of pairs over each other, a column a run.

Python -m bench.curves OUT.png RUN… [NAME=RUN …]
"""

import json
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from distgan.monitor.journal import epoch_means, finite, read_journal
from distgan.outputs import signal_plots as figures

HEALTHY = (0.2, 0.7)  # of the D loss


def draw(path: Path, runs: list[tuple[str, Path]]) -> None:
    """D loss, GAN loss and L1 of each run, means over epochs, with the places where
    `watch.on_trouble` acted.
    """
    with mpl.rc_context({**figures.STYLE, "grid.alpha": 0.3}):
        figure = Figure(figsize=(3.4 * len(runs), 5.6), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.subplots(3, len(runs), sharex="col", sharey="row", squeeze=False)
        for column, (name, folder) in zip(axes.T, runs, strict=True):
            _column(column, name, folder)
        for ax, label in zip(axes[:, 0], ("D loss", "GAN loss of G", "L1"), strict=True):
            ax.set_ylabel(label)
        axes[0, 0].set_ylim(0, 0.75)
        axes[2, 0].legend()
        figures.save(path, figure)


def _column(axes: np.ndarray, name: str, folder: Path) -> None:
    rows = read_journal(folder / "journal.jsonl")
    for ax, key, label in (
        (axes[0], "d/loss", None),
        (axes[1], "g/adversarial", None),
        (axes[2], "g/l1", "training"),
    ):
        means = epoch_means(finite(rows, key), rows[-1]["epoch"])
        ax.plot(means[:, 0], means[:, 1], color=figures.BLUE, label=label)
    valid = finite(rows, "valid/l1")
    axes[2].plot(valid[1:, 0], valid[1:, 1], color=figures.ORANGE, label="validation")
    axes[0].axhspan(*HEALTHY, color=figures.GREEN, alpha=0.12, linewidth=0)
    for event in map(json.loads, (folder / "events.jsonl").read_text().splitlines()):
        trouble = event["event"] == "warning" and event.get("level") == "warning"
        if trouble or event["event"] in ("adapt", "rollback"):
            for ax in axes:
                ax.axvline(
                    event["epoch"],
                    color=figures.RED if trouble else figures.GREEN,
                    linewidth=0.8,
                    linestyle=":" if trouble else "-",
                )
    axes[0].set_title(name)
    axes[2].set_xlabel("epoch")


if __name__ == "__main__":
    named = [
        word.partition("=")[::2] if "=" in word else (Path(word).name, word)
        for word in sys.argv[2:]
    ]
    draw(Path(sys.argv[1]), [(name, Path(run)) for name, run in named])
