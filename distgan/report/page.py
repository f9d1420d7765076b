"""Render one run as one HTML page: this module collects the data, templates/ has the HTML.

Imports no torch. Templates escape all text, so a hostile file name or setting stays text, and no
character of it is invisible; only the curves, which this project draws, are inserted as they are.
"""

import json
import math
from datetime import UTC, datetime
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from distgan.config.introspection import flatten
from distgan.core.console import clock, printable
from distgan.monitor.interventions import marks
from distgan.monitor.moves import format_setting
from distgan.monitor.results import HealthSignal
from distgan.report.curves import FLOOR, curves
from distgan.report.formatting import moment, number
from distgan.report.media import generated, results, samples
from distgan.report.score_tables import (
    archive_table,
    audio_scores,
    image_scores,
    newest_class_scores,
)
from distgan.runs.history import History

MAX_EVENTS = 40
TEMPLATES = Environment(
    loader=PackageLoader("distgan.report"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=lambda value: printable(value) if type(value) is str else value,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"number": number, "moment": moment}


def render(run: History, now: datetime | None = None) -> str:
    """Return the page of a run as HTML, as of `now`."""
    now = now or datetime.now(UTC)
    drawings = curves(run.with_floors, run.settings, run.best, marks(run.interventions, run.rows))
    first = drawings.pop(FLOOR, None) or drawings.pop("Score", None)
    return TEMPLATES.get_template("page.html").render(
        run=run,
        progress=progress(run, now),
        facts=_facts(run),
        score_drawing=first,
        drawings=drawings,
        curve_notes=_curve_notes(run),
        image_scores=image_scores(run),
        class_scores=newest_class_scores(run),
        audio_scores=audio_scores(run),
        archive=archive_table(run),
        samples=samples(run),
        generated=generated(run),
        results=results(run),
        signals=[(signal, _healthy_range(signal)) for signal in run.signals],
        best_step=(run.best or {}).get("step"),
        **_settings(run),
        attempts=_attempts(run),
        events=_events(run),
        written=now.strftime("%Y-%m-%d %H:%M"),
    )


def progress(run: History, now: datetime | None = None) -> str:
    """Summarize the progress and the best score of a run in one line."""
    epochs = run.config.get("epochs")
    parts = [f"epoch {run.epoch:.4g}" + (f" of {epochs:.4g}" if epochs else "")]
    if not run.rows:
        parts = ["has just begun: the journal is empty"]
    if run.best:
        parts.append(
            f"best {run.best.get('metric')} {number(run.best.get('score'))} at epoch"
            f" {number(run.best.get('epoch'))}"
        )
    elif run.rows:
        parts.append("not evaluated yet")
    if run.status.get("cause") and run.state != "done":
        parts.append(f"cause: {run.status['cause']}")
    silent_s = run.silent_s(now)
    if silent_s is not None:
        parts.append(
            f"no heartbeat for {clock(silent_s)}: it may have been killed; the same command"
            " continues it"
        )
    return "; ".join(parts)


def _facts(run: History) -> list[tuple[str, str, str]]:
    """Return (name, value, note) of each figure at the top of the page."""
    newest = (list(run.attempts.values()) or [{}])[-1]
    data, best, epochs = newest.get("data") or {}, run.best or {}, run.config.get("epochs")
    split, best_epoch = "", ""
    if data:
        split = f"{number(data.get('train'))} train, {number(data.get('validation'))} held out"
    if best.get("epoch") is not None:
        best_epoch = f"epoch {number(best['epoch'])}"
    plural = "" if len(run.attempts) == 1 else "s"
    processes = number(newest.get("processes"))
    facts = [
        (f"{run.unit} seen", f"{run.seen:,}", split),
        ("epochs", number(run.epoch), f"of {number(epochs)}" if epochs else ""),
        (f"best {best.get('metric', 'score')}", number(best.get("score")), best_epoch),
        ("wall time", clock(run.wall_s), f"{len(run.attempts)} attempt{plural}"),
        ("processes", processes, newest.get("device") or ""),
        ("recent speed", number(run.speed, 3), "" if run.speed is None else f"{run.unit}/s"),
    ]
    peaks = [attempt.get("peak_memory_mb") for attempt in run.attempts.values()]
    peaks = [peak for peak in peaks if peak is not None]
    if peaks:
        note = "" if processes == "1" else "per process"
        facts.append(("peak memory", f"{number(peaks[-1])} MB", note))
    return facts + _code(run)


def _code(run: History) -> list[tuple[str, str, str]]:
    """Return the digest of the code of a recipe that is not distgan's, and those before it."""
    if not isinstance(code := run.identity.get("code"), dict):
        return []
    earlier = [
        f"{event.get('before')} until epoch {number(event.get('epoch'))}"
        for event in run.events
        if event.get("event") == "code"
    ]
    return [("code of the recipe", str(code.get("digest")), "; ".join(earlier[-3:]))]


def _curve_notes(run: History) -> list[str]:
    notes = ["Faint: as journalled, line: smoothed"]
    last = run.evaluations[-1] if run.evaluations else {}
    metric, count = last.get("metric"), number(last.get("samples"))
    if last.get("extractor") is not None:
        notes.append(
            f"{metric}: {count} generated against {number(last.get('reals'))} real samples,"
            f" features {last['extractor']}"
        )
    elif last:
        notes.append(f"{metric}: over {count} held-out {run.unit}, lower is better")
    if run.metric == "frechet_standin":
        notes.append(
            "a seeded random network, which sees neither noise nor JPEG artefacts nor parts in"
            " wrong places: compare it only between runs of the same extractor"
        )
    if run.metric == "frechet_lite0":
        notes.append(
            "frechet_lite0 compares with no published FID, which is of Inception's features: only"
            " with runs on the same data"
        )
    return notes


def _healthy_range(signal: HealthSignal) -> str:
    low, high = signal.low, signal.high
    if low is not None and high is not None:
        return f"{low:.3g} – {high:.3g}"
    if low is not None:
        return f"≥ {low:.3g}"
    return f"≤ {high:.3g}" if high is not None and math.isfinite(high) else "–"


def _settings(run: History) -> dict[str, list[dict[str, Any]]]:
    """Return the settings that the user gave, that differ from their defaults or were changed in
    flight; the others; and the tuning guide.
    """
    resolved = dict(flatten(run.config))
    newest = (list(run.attempts.values()) or [{}])[-1].get("changed")
    differing = newest if isinstance(newest, list) else []  # runs made before have no such record
    chosen = {key: resolved[key] for key in differing if type(key) is str and key in resolved}
    chosen |= dict(flatten(run.overrides))
    changed = {
        key: format_setting(value)
        for key, value in run.values.items()
        if key not in run.config or run.config[key] != value
    }
    parts: dict[str, list[dict[str, Any]]] = {"chosen": [], "settings": [], "guide": []}
    for key, value in (chosen | resolved).items():
        if key.startswith("watch.moves.") and isinstance(value, list):
            # Of a guide only what this recipe can move.
            moves = [m for m in value if not isinstance(m, dict) or m.get("setting") in resolved]
            if value and not moves and key not in chosen:
                continue
            value = moves
        part = "guide" if key.startswith("watch.moves.") else "settings"
        row = {"key": key, "text": _yaml(value), "changed": changed.get(key)}
        parts["chosen" if key in chosen or row["changed"] else part].append(row)
    return parts


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _attempts(run: History) -> list[dict[str, Any]]:
    """Return the cells of each attempt; `launch` is None where it equals the previous one's."""
    rows, previous = [], None
    for name, attempt in run.attempts.items():
        batch, git = attempt.get("batch") or {}, attempt.get("git") or {}
        device = [str(attempt[key]) for key in ("device", "engine") if attempt.get(key)]
        launch = (
            " ".join(map(str, attempt.get("argv") or [])),
            "  ".join(f"{key} {text}" for key, text in (attempt.get("versions") or {}).items()),
        )
        split = "–"
        if batch:
            split = (
                f"{batch.get('global')} = {batch.get('ranks')} ranks × {batch.get('accumulation')}"
                f" accumulation × {batch.get('per_rank')}"
            )
        rows.append(
            {
                "name": name,
                "started": attempt.get("started"),
                "ended": attempt.get("ended"),
                "cause": attempt.get("cause") or "–",
                "host": attempt.get("host") or "–",
                "processes": attempt.get("processes"),
                "device": ", ".join(device) or "?",
                "batch": split,
                "commit": str(git.get("commit") or "–")[:12]
                + (" + changes" if git.get("dirty") else ""),
                "launch": None if launch == previous else launch,
            }
        )
        previous = launch
    return rows


def _events(run: History) -> list[tuple[str | None, str, str]]:
    """Return (time, name, fields) of the newest events, newest first."""
    rows = []
    for event in reversed(run.events[-MAX_EVENTS:]):
        fields = {key: value for key, value in event.items() if key not in ("time", "event")}
        text = "  ".join(
            f"{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in fields.items()
        )
        rows.append((event.get("time"), event.get("event", "–"), text))
    return rows
