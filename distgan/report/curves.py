"""The curves of a run as inline SVG, from its journal: which there are and what each shows.

Imports no torch.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from distgan.monitor.journal import finite, finite_number, gaps, series
from distgan.monitor.settings import Watch
from distgan.outputs.signal_plots import BLUE, GRAY, GREEN, ORANGE, RED, plain
from distgan.report.plotting import PURPLE, TALL, WIDE, draw, healthy, lines, scale

Keys = dict[str, tuple[str, str]]  # {label: (journal key, colour)}
FLOOR = "Score against its floor"
PAIRED = {
    "L1": "l1",
    "STFT": "stft",
    "SI-SDR in dB": "si_sdr",
    "Log-spectral distance in dB": "lsd",
}
RANGED: dict[str, Keys] = {
    "GAN loss of G": {
        "training": ("g/adversarial", BLUE),
        "validation": ("valid/adversarial", GREEN),
    },
    "Scores of D": {"real": ("d/real_score", BLUE), "generated": ("d/fake_score", ORANGE)},
    "Share that D tells apart": {"training": ("d/told_apart", BLUE)},
    "Wasserstein estimate": {
        "training": ("d/wasserstein", BLUE),
        "held-out images": ("valid/wasserstein", GREEN),
        "training images, as they are": ("valid/train_wasserstein", ORANGE),
    },
}
PLAIN: dict[str, Keys] = {
    "Gradient penalty": {
        "penalty": ("d/penalty", BLUE),
        "of reals": ("d/r1", BLUE),
        "of samples": ("d/r2", ORANGE),
    },
}


def curves(
    rows: list[dict],
    settings: Watch,
    best: dict | None = None,
    marks: Sequence[tuple[float, str]] = (),
) -> dict[str, str]:
    """Return {title: svg element} of every drawing that has data.

    `marks` are (epoch, action) of what `watch` changed, from `interventions.marks`.
    """
    drawings: dict[str, Callable[..., bool]] = {
        "Losses": _losses,
        "D(x) and D(G(z))": _probabilities,
        **{title: partial(_paired, name=name) for title, name in PAIRED.items()},
        **{title: partial(_ranged, keys=keys) for title, keys in RANGED.items()},
        "Score": partial(_score, best=best),
        FLOOR: _floor,
        "Diversity of samples": _diversity,
        "D on held-out samples": _validation,
        **{title: partial(_plain, keys=keys) for title, keys in PLAIN.items()},
        "Gradient norms": partial(_plain, keys=_of_players(rows, "grad_norm")),
        "Learning rates": partial(_plain, keys=_of_players(rows, "lr"), smooth=False, dashes=True),
    }
    drawn = {
        title: draw(
            title,
            partial(paint, rows=rows, settings=settings),
            marks,
            TALL if title == FLOOR else WIDE,
        )
        for title, paint in drawings.items()
    }
    return {title: svg for title, svg in drawn.items() if svg}


def _of_players(rows: list[dict], number: str) -> Keys:
    """Return the journal's keys of one number of each player: of D and G, then of others."""
    names = {
        player
        for row in rows
        for player, slash, name in (key.partition("/") for key in row)
        if slash and name == number
    }
    others = sorted(names - {"d", "g", "valid", "eval"})
    colours = itertools.cycle((PURPLE, GREEN, RED, GRAY))
    return {"D": (f"d/{number}", BLUE), "G": (f"g/{number}", ORANGE)} | {
        name.upper(): (f"{name}/{number}", colour)
        for name, colour in zip(others, colours, strict=False)
    }


def _plain(ax: Axes, rows: list[dict], settings: Watch, keys: Keys, **style: bool) -> bool:
    return lines(ax, rows, keys, **style)


def _losses(ax: Axes, rows: list[dict], settings: Watch) -> bool:
    keys = _of_players(rows, "loss")
    if any("valid/adversarial" in row for row in rows):  # images have another drawing for it
        keys["D, validation"] = ("valid/d_loss", GREEN)
    if not lines(ax, rows, keys):
        return False
    if len(finite(rows, "d/loss")) and not settings.unbounded:
        strong = (
            None
            if settings.d_loss_strong is None
            else settings.d_loss_floor + settings.d_loss_strong
        )
        healthy(ax, *settings.healthy.get("d/loss", (strong, None)), " D loss")
    return True


def _probabilities(ax: Axes, rows: list[dict], settings: Watch) -> bool:
    if not lines(ax, rows, {"D(x)": ("d/real_prob", BLUE), "D(G(z))": ("d/fake_prob", ORANGE)}):
        return False
    healthy(ax, *settings.healthy.get("d/real_prob", (None, None)), " D(x)")
    ax.set_yscale("linear")
    ax.set_ylim(0, 1)
    return True


def _ranged(ax: Axes, rows: list[dict], settings: Watch, keys: Keys) -> bool:
    """Draw curves on a linear axis, with the healthy range of the first, if it has one."""
    if not lines(ax, rows, keys):
        return False
    ax.set_yscale("linear")
    healthy(ax, *settings.healthy.get(next(iter(keys.values()))[0], (None, None)))
    return True


def _paired(ax: Axes, rows: list[dict], settings: Watch, name: str) -> bool:
    """Draw a measure of pairs in training, in validation and of the unchanged input.

    With the healthy gap between training and validation for L1.
    """
    keys = {
        "training": (f"g/{name}", BLUE),
        "validation": (f"valid/{name}", GREEN),
        "input as it is": (f"valid/input_{name}", GRAY),
    }
    if not lines(ax, rows, keys):
        return False
    gap = gaps(rows, name)
    if name == "l1" and len(gap):
        limits = ax.get_ylim()
        epoch, train, valid = gap.T
        ax.fill_between(
            epoch,
            train,
            train + settings.gap_healthy,
            color=GREEN,
            alpha=0.1,
            linewidth=0,
            label=f"healthy gap (to {settings.gap_healthy:g})",
        )
        beyond = valid > train + settings.gap_healthy
        if beyond.any():
            ax.fill_between(
                epoch,
                train + settings.gap_healthy,
                valid,
                where=beyond,
                interpolate=True,
                color=RED,
                alpha=0.2,
                linewidth=0,
                label="gap beyond",
            )
        ax.set_ylim(limits)
    return True


def _diversity(ax: Axes, rows: list[dict], settings: Watch) -> bool:
    if not lines(
        ax, rows, {"of real samples' (1: alike)": ("valid/diversity", BLUE)}, smooth=False
    ):
        return False
    ax.set_yscale("linear")
    ax.set_ylim(bottom=0)
    healthy(ax, settings.diversity_low, None)
    return True


def _score(ax: Axes, rows: list[dict], settings: Watch, best: dict | None) -> bool:
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("eval/"))
    for key, colour in zip(keys, (BLUE, GREEN, ORANGE, PURPLE, GRAY), strict=False):
        x, y = finite(rows, key).T
        if not len(x):
            continue
        ax.plot(
            x,
            y,
            color=colour,
            linewidth=0.8,
            alpha=0.5,
            marker="o",
            markersize=2.5,
            label=plain(key.partition("/")[2])[:40],
        )
        ax.plot(
            x,
            np.minimum.accumulate(y),
            color=colour,
            linewidth=1.4,
            drawstyle="steps-post",
            label="best so far",
        )
        scale(ax, y)
    if not ax.lines:
        return False
    if (
        best
        and finite_number(best.get("score")) is not None
        and finite_number(best.get("epoch")) is not None
    ):
        ax.plot(
            [best["epoch"]],
            [best["score"]],
            "*",
            color=RED,
            markersize=10,
            label=f"best {best['score']:.4g}",
            zorder=5,
        )
    return True


def _floor(ax: Axes, rows: list[dict], settings: Watch) -> bool:
    """Draw the score of k samples and that of k real images, both against k other real images."""
    counts = finite(rows, "floor/samples")[:, 1]
    if not len(counts):
        return False
    k = f"{counts[-1]:,.0f}"
    drawn = lines(
        ax,
        rows,
        {
            f"{k} samples": ("floor/generated", BLUE),
            f"floor: {k} real images": ("floor/real", GREEN),
        },
        smooth=False,
    )
    if drawn:
        scale(ax, np.concatenate([line.get_ydata() for line in ax.lines]))
    return drawn


def _validation(ax: Axes, rows: list[dict], settings: Watch) -> bool:
    keys = {
        "training": ("valid/train_prob", BLUE),
        "held-out": ("valid/real_prob", GREEN),
        "generated": ("valid/fake_prob", ORANGE),
        "overfit": ("valid/overfit", RED),
    }
    if not lines(ax, rows, keys, smooth=False):
        return False
    both = series(rows, "valid/train_prob", "valid/real_prob")
    ax.fill_between(*both.T, color=GREEN, alpha=0.12, linewidth=0)
    if settings.overfit_high is not None:
        ax.axhline(
            settings.overfit_high, color=RED, linewidth=0.8, linestyle=(0, (2, 3)), alpha=0.7
        )
    ax.set_yscale("linear")
    return True
