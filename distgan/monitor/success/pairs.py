"""Success criteria of repaired signals: L1 and its gap, and what a trivial output scores: zeros, or
the input as it is. Imports no torch.
"""

import numpy as np

from distgan.monitor.journal import finite, gaps, score_key
from distgan.monitor.rules_outcome import validation_rising
from distgan.monitor.settings import Watch
from distgan.monitor.success.criterion import Criterion, count

# The share of held-out samples on which a trivial output must be beaten, beside the mean. The
# repaired waveform run beats zeros on 66 % (docs/waveform.md): of a pulse that drowns in noise
# zeros are a good estimate.
MOST = 0.5


def l1_falls(rows: list[dict], s: Watch) -> Criterion:
    required = "both fall, and validation L1 does not rise again"
    table = gaps(rows)
    if len(table) < 2:
        return Criterion(
            "training and validation L1",
            None,
            f"{count(len(table), 'validation')} with training before, 2 are needed",
            required,
            outcome=True,
            early=True,
        )
    last = np.median(table[-s.valid_window :], axis=0) if len(table) > s.valid_window else table[-1]
    rising = validation_rising(rows, s, {})
    fell = bool((last[1:] < table[0, 1:] * (1 - s.score_flat_change)).all())
    measured = (
        f"training {table[0, 1]:.3g} → {last[1]:.3g}, validation {table[0, 2]:.3g} → {last[2]:.3g},"
        f" epochs {table[0, 0]:.4g} to {table[-1, 0]:.4g}"
    )
    return Criterion(
        "training and validation L1",
        fell and rising is None,
        measured + (f"; {rising.message}" if rising else ""),
        required,
        outcome=rising is None or not fell,  # the best checkpoint is from before a rise
        fault="L1 does not fall",
    )


def gap(rows: list[dict], s: Watch) -> Criterion:
    required = (
        f"validation L1 − training L1 below {s.gap_healthy:g} (median of the last {s.valid_window}"
        " validations)"
    )
    table = gaps(rows)[-s.valid_window :]
    if not len(table):
        return Criterion(
            "generalisation gap",
            None,
            "no validation with training before it yet",
            required,
            outcome=True,
        )
    train, valid = np.median(table[:, 1]), np.median(table[:, 2])
    found = float(np.median(table[:, 2] - table[:, 1]))
    return Criterion(
        "generalisation gap",
        found < s.gap_healthy,
        f"{found:.3g} ({valid:.3g} − {train:.3g})",
        required,
        outcome=not s.gap_healthy <= found < (s.gap_high or 0),
        fault=f"overfitted (gap {found:.3g})",
    )


def beats_trivial(rows: list[dict]) -> Criterion:
    """Compare the L1 of each held-out sample with that of zeros and of the input, at the best
    validation.
    """
    name = "trivial output"
    required = "L1 below that of zeros and of the input, in the mean and on most held-out samples"
    table = finite(rows, "valid/l1", "valid/beats_trivial", "valid/zeros_l1", "valid/input_l1")
    table = table[table[:, 0] > 0]
    if len(table):
        epoch, l1, share, zeros, given = table[table[:, 1].argmin()]
        return Criterion(
            name,
            bool(share > MOST and l1 < min(zeros, given)),
            f"below both on {share:.0%}; in the mean {l1:.3g}, zeros {zeros:.3g}, the input"
            f" {given:.3g}, at epoch {epoch:.4g}",
            required,
            outcome=True,
            fault=f"zeros or the input are as good (beaten on {share:.0%} of held-out samples)",
            early=True,
        )
    means = finite(rows, "valid/l1", "valid/input_l1")
    if len(means) and (best := means[means[:, 1].argmin()])[1] >= best[2]:
        measured = f"{best[1]:.3g}, the input {best[2]:.3g}, at epoch {best[0]:.4g}"
        return Criterion(name, False, measured, required, True, "no better than its input")
    measured = "not measured sample by sample after training began"
    return Criterion(name, None, measured, required, outcome=True)


# ---- audio that is to be better than its input: the timbre system
def beats_input(rows: list[dict], name: str, key: str, unit: str, higher: bool) -> Criterion:
    """Compare with the input at the validation with the best score, whose checkpoint the results
    are made from; without a score, at the last validation.
    """
    required = (
        f"repaired audio {'above' if higher else 'below'} the denoised input, on held-out"
        " recordings"
    )
    table = finite(rows, f"valid/{key}", f"valid/input_{key}")
    table = table[table[:, 0] > 0]
    if not len(table):
        return Criterion(
            name,
            None,
            f"no validation with valid/{key} and valid/input_{key} after training began",
            required,
            outcome=True,
        )
    epoch, output, source = table[_at_best(rows, table)]
    measured = (
        f"{output:.4g} against {source:.4g}{unit and ' ' + unit} at epoch"
        f" {epoch:.4g}{', the best checkpoint' if score_key(rows) else ''}"
    )
    met = bool(output > source if higher else output < source)
    return Criterion(name, met, measured, required, True, f"{name} no better than the input's")


def on_most(rows: list[dict]) -> Criterion:
    """Compare SI-SDR with that of the input recording by recording, where that was measured."""
    name = "SI-SDR, clip by clip"
    required = "above that of the denoised input on most held-out recordings"
    table = finite(rows, "valid/beats_input")
    table = table[table[:, 0] > 0]
    if not len(table):
        return Criterion(name, None, "not measured after training began", required, outcome=True)
    epoch, share = table[_at_best(rows, table)]
    fault = f"better than the input on {share:.0%} of held-out recordings only"
    measured = f"above it on {share:.0%} at epoch {epoch:.4g}"
    return Criterion(name, bool(share > MOST), measured, required, True, fault)


def _at_best(rows: list[dict], table: np.ndarray) -> int:
    """Return the row of the validation with the best score; without a score, the last one."""
    score = score_key(rows)
    scores = finite(rows, score) if score else table[:0]
    if not len(scores):
        return len(table) - 1
    return int(np.abs(table[:, 0] - scores[scores[:, 1].argmin(), 0]).argmin())
