"""Read the journal of a run: lines, the series of a key, medians and means. Imports no torch."""

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np

from distgan.core.errors import RunError
from distgan.core.reading import parse_json, read_lines, read_tail

RECENT = 5000  # the last training lines are all evaluated
THIN = 32  # of older ones, those whose step is a multiple of this
# In rows of a validation or evaluation that was made only because `epochs` ended there.
UNSCHEDULED = {"unscheduled": True}


def read_journal(path: Path | str) -> list[dict]:
    """Return the lines of a journal in order, [] if there is none yet.

    A last line torn by a crash is left out. Lines that a resumed attempt wrote again replace the
    earlier ones. Raise RunError for damage anywhere else, with the line number.
    """
    path = Path(path)
    rows: list[dict] = []
    try:
        lines = read_lines(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    last = max((n for n, line in enumerate(lines) if line.strip()), default=-1)
    for n, line in enumerate(lines[: last + 1]):
        if not line.strip():
            continue
        try:
            row = parse_row(line)
        except ValueError as error:
            if n == last:
                break
            raise RunError(
                f"{path}, line {n + 1}: not a journal line (a JSON object with step and epoch):"
                f" {line[:60]!r}; only the last line may be torn. Remove the line to go on"
                " without it"
            ) from error
        while rows and rows[-1]["step"] > row["step"]:
            rows.pop()
        rows.append(row)
    return rows


def parse_row(line: bytes) -> dict[str, Any]:
    """Parse a line of a journal; ValueError if it is none."""
    row = parse_json(line)
    if (
        not isinstance(row, dict)
        or type(row.get("step")) is not int
        or finite_number(row.get("epoch")) is None
    ):
        raise ValueError("not a JSON object with step and epoch")
    return row


def recent(rows: list[dict]) -> list[dict]:
    """Return the lines of a journal that are evaluated: the last RECENT training lines, every
    THIN-th step before them, and all scheduled validations and scores.

    recent(recent(a) + b) == recent(a + b), so a run that keeps only these lines and one that was
    continued, and read its whole journal, get the same findings.
    """
    return thinned([row for row in rows if "unscheduled" not in row])


def thinned(rows: list[dict]) -> list[dict]:
    """Return the same lines, with the validations and scores that are not scheduled."""
    training = [i for i, row in enumerate(rows) if "seconds" in row]
    if len(training) <= RECENT:
        return rows
    start = training[-RECENT]
    return [
        row
        for i, row in enumerate(rows)
        if i >= start or row["step"] % THIN == 0 or "seconds" not in row
    ]


def at_last_check(rows: list[dict]) -> list[dict]:
    """Return the lines of a journal up to its last validation or evaluation; [] before the first.

    Of the training lines, those of the last RECENT / 2 steps, and every THIN-th step before them:
    `thinned` still keeps all of these RECENT / 2 steps later.
    """
    rows = [row for row in rows if "unshown" not in row]
    checks = (i for i in range(len(rows) - 1, -1, -1) if _is_check(rows[i]))
    rows = rows[: next(checks, -1) + 1]
    start = rows[-1]["step"] - RECENT // 2 if rows else 0
    return [
        row
        for row in rows
        if "seconds" not in row or row["step"] > start or row["step"] % THIN == 0
    ]


def _is_check(row: dict) -> bool:
    return any(key.startswith(("valid/", "eval/")) for key in row)


def series(rows: list[dict], *keys: str) -> np.ndarray:
    """Return [n, 1 + len(keys)] float64: the epoch and the values of all lines that hold every key,
    one per step, in order of steps.
    """
    held = [row for row in rows if all(key in row for key in keys)]
    table = np.array(
        [(row["epoch"], *[number(row[key]) for key in keys]) for row in held], dtype=float
    ).reshape(-1, 1 + len(keys))
    # Of lines with the same step the last counts: look for the first in the reversed order.
    _, first = np.unique(
        np.array([row["step"] for row in held], dtype=np.int64)[::-1], return_index=True
    )
    return table[len(held) - 1 - first]


def finite(rows: list[dict], *keys: str) -> np.ndarray:
    """Return `series` without the lines in which a value is not finite."""
    table = series(rows, *keys)
    return table[np.isfinite(table).all(axis=1)]


def number(value) -> float:
    """Return a float; NaN for null, since JSON has no NaN."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # JSON has whole numbers of any length
        return math.nan


def finite_number(value) -> float | None:
    """Return a finite number, else None."""
    value = number(value)
    return value if math.isfinite(value) else None


def medians(table: np.ndarray, window: int) -> np.ndarray:
    """[n, k] -> [n - window + 1, k]: the epoch at which each full window ends, and its medians."""
    if len(table) < window:
        return table[:0]
    views = np.lib.stride_tricks.sliding_window_view(table[:, 1:], window, axis=0)
    return np.column_stack([table[window - 1 :, 0], np.median(views, axis=-1)])


def epoch_means(table: np.ndarray, now: float) -> np.ndarray:
    """[n, k] -> [epochs, k]: the number of each epoch that has ended at epoch `now` and has lines,
    and the means over its lines.

    Epoch 1 has the lines with 0 < epoch <= 1, so a line written at the end of an epoch belongs to
    it.
    """
    number = np.ceil(table[:, 0] - 1e-6)  # the journal rounds epochs to six decimals
    over = (number >= 1) & (number <= math.floor(now + 1e-6))
    numbers, first = np.unique(number[over], return_index=True)
    if not len(numbers):
        return table[:0]
    sums = np.add.reduceat(table[over, 1:], first, axis=0)
    return np.column_stack([numbers, sums / np.diff([*first, over.sum()])[:, None]])


def since(bad: np.ndarray, good: np.ndarray) -> int | None:
    """Return the index at which the current spell began; None if there is none.

    A spell starts where `bad` is true and ends where `good` is.
    """
    ended = np.flatnonzero(good)
    start = ended[-1] + 1 if len(ended) else 0
    begun = np.flatnonzero(bad[start:])
    return int(start + begun[0]) if len(begun) else None


def score_key(rows: list[dict]) -> str | None:
    """Return the key of the last score, as in `eval/fid`; None before the first evaluation."""
    return next((key for row in reversed(rows) for key in row if key.startswith("eval/")), None)


def floor_row(result: dict[str, Any]) -> dict[str, Any]:
    """Return the keys `floor/…` of an evaluation: how k samples score beside k real images.

    Both against the same k other real images, so their ratio is free of the bias of a small k. Only
    finite numbers: what an evaluation did not measure has no key.
    """
    floor = result.get("floor")
    floor = floor if isinstance(floor, dict) else {}
    real, samples = (
        side if isinstance(side := floor.get(name), dict) else {} for name in ("real", "generated")
    )
    found = {
        "floor/samples": floor.get("samples"),
        "floor/real": real.get("score"),
        "floor/generated": samples.get("score"),
        "floor/real_coverage": real.get("coverage"),
        "floor/coverage": samples.get("coverage"),
    }
    return {key: value for key, value in found.items() if finite_number(value) is not None}


def gaps(rows: list[dict], key: str = "l1") -> np.ndarray:
    """Return [n, 3], for each validation: its epoch, the mean of `g/key` over the training lines of
    the epoch that ended with it, and `valid/key`.

    With more than one validation per epoch, the mean is over the lines since the last one. A
    validation without training lines before it is left out.
    """
    train, valid = finite(rows, f"g/{key}"), finite(rows, f"valid/{key}")
    table, before = [], -math.inf
    for epoch, value in valid:
        low, high = np.searchsorted(
            train[:, 0], [max(before, epoch - 1) + 1e-9, epoch + 1e-9], side="left"
        )
        if high > low:
            table.append((epoch, train[low:high, 1].mean(), value))
        before = epoch
    return np.array(table).reshape(-1, 3)


def last_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows in the last 64 KiB of a journal."""
    return [row for row in tail_of(path, 64 << 10) if type(row.get("step")) is int]


def tail_of(path: Path, size: int) -> list[dict[str, Any]]:
    """Return the JSON objects of the whole lines in the last `size` bytes of a file.

    Torn lines are skipped.
    """
    try:
        text = read_tail(path, size + 1)
    except OSError:
        return []
    found = []
    for line in text.split(b"\n")[len(text) > size :]:  # the first one is cut
        with contextlib.suppress(ValueError):
            row = parse_json(line)
            if isinstance(row, dict):
                found.append(row)
    return found


def current_settings(values: dict[str, Any], rows: list[dict]) -> dict[str, Any]:
    """Return the settings with what was changed in flight, by the journal's keys `adapt/…`."""
    return values | {
        key.removeprefix("adapt/"): value
        for row in rows
        for key, value in row.items()
        if key.startswith("adapt/")
    }
