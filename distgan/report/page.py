"""One run as one HTML page that needs nothing else.

No script, no link, pictures, sounds and curves inside. Imports no torch.
"""

import json
import math
from datetime import UTC, datetime
from typing import Any

import yaml

from distgan.core.console import clock
from distgan.monitor.decisions import Signal, shown
from distgan.monitor.interventions import marks
from distgan.report.curves import curves
from distgan.report.markup import document, e, moment, number, table
from distgan.report.media import results, samples
from distgan.report.score_tables import scoreboard
from distgan.report.sound_tables import soundboard
from distgan.runs.history import History

EVENTS = 40


def render(run: History, now: datetime | None = None) -> str:
    """The page of a run, as it stands at `now`."""
    now = now or datetime.now(UTC)
    sections = [
        _facts(run),
        _criteria(run),
        _findings(run),
        _interventions(run),
        _curves(run),
        scoreboard(run),
        soundboard(run),
        samples(run),
        results(run),
        _health(run),
        _checkpoints(run),
        _settings(run),
        _attempts(run),
        _events(run),
    ]
    head = (
        f"<h1><small>{e(run.folder.parent.name)} /</small> {e(run.folder.name)}</h1>\n"
        '<p class="verdict"><span class="badge'
        f' {e(run.state)}">{e(run.state)}</span>{e(verdict(run, now))}</p>'
    )
    foot = f'<p class="soft">Written {e(now.strftime("%Y-%m-%d %H:%M"))} UTC by distgan report.</p>'
    return document(run.name, "\n".join(part for part in (head, *sections, foot) if part))


def verdict(run: History, now: datetime | None = None) -> str:
    """One line: how far, how good, what is wrong."""
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
    if run.criteria:
        parts.append(
            f"{sum(one.met is True for one in run.criteria)} of {len(run.criteria)} success"
            " criteria met"
        )
    warnings = [finding.rule for finding in run.findings if finding.level == "warning"]
    judged = any(signal.ok is not None for signal in run.signals[:-2])
    parts.append(
        f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''} ({', '.join(warnings)})"
        if warnings
        else "no warnings"
        if judged
        else "too few journal lines to judge its health"
    )
    if run.status.get("cause") and run.state != "done":
        parts.append(f"cause: {run.status['cause']}")
    if (silent := run.silent_s(now)) is not None:
        parts.append(
            f"no heartbeat for {clock(silent)}: it may have been killed; the same command goes on"
            " with it"
        )
    return "; ".join(parts)


def _facts(run: History) -> str:
    batch = (list(run.attempts.values()) or [{}])[-1]
    data = batch.get("data") or {}
    best, memory = (
        run.best or {},
        [
            attempt["peak_memory_mb"]
            for attempt in run.attempts.values()
            if attempt.get("peak_memory_mb") is not None
        ],
    )
    split = (
        f"{number(data.get('train'))} train, {number(data.get('validation'))} held out"
        if data
        else ""
    )
    facts = [
        (f"{run.unit} seen", f"{run.seen:,}", split),
        (
            "epochs",
            number(run.epoch),
            f"of {number(run.config['epochs'])}" if run.config.get("epochs") else "",
        ),
        (
            f"best {best.get('metric', 'score')}",
            number(best.get("score")),
            f"epoch {number(best['epoch'])}" if best.get("epoch") is not None else "",
        ),
        (
            "wall time",
            clock(run.wall_s),
            f"{len(run.attempts)} attempt{'s' if len(run.attempts) != 1 else ''}",
        ),
        ("processes", number(batch.get("processes")), batch.get("device") or ""),
        ("recent speed", number(run.speed, 3), f"{run.unit}/s" if run.speed is not None else ""),
        *(
            [
                (
                    "peak memory",
                    f"{number(memory[-1])} MB",
                    "of a process" if number(batch.get("processes")) != "1" else "",
                )
            ]
            if memory
            else []
        ),
    ]
    return (
        "<dl>"
        + "".join(
            f"<div><dt>{e(name)}</dt><dd>{e(value)} <small>{e(note)}</small></dd></div>"
            for name, value, note in facts
        )
        + "</dl>"
    )


def _criteria(run: History) -> str:
    words = {
        True: '<td class="good">met</td>',
        False: '<td class="bad">not met</td>',
        None: '<td class="soft">unknown</td>',
    }
    rows = "".join(
        f'<tr><td class="time">{e(one.name)}</td>'
        f"{words[one.met]}<td>{e(one.found)}</td><td>{e(one.asked)}</td></tr>"
        for one in run.criteria
    )
    return (
        "<h2>Success criteria</h2>" + table(("criterion", "", "found", "asked"), rows)
        if rows
        else ""
    )


def _findings(run: History) -> str:
    if not run.findings:
        return ""
    return "<h2>Findings</h2>" + "".join(
        f'<div class="finding {e(f.level)}"><b>{e(f.rule)}</b> <span class="soft">since epoch'
        f' {e(number(f.epoch))}</span><p>{e(f.message)}.</p><p><span class="soft">Moves:</span>'
        f" {e(f.advice)}.</p></div>"
        for f in run.findings
    )


def _interventions(run: History) -> str:
    """What `watch` did by itself, in the order in which it did it."""
    rows = "".join(
        f'<tr><td class="time">{e(moment(one.time))}</td><td'
        f' class="n">{e(number(one.epoch))}</td><td>{e(one.action)}</td><td>{e(one.rule)}</td>'
        f"<td>{e(one.changes)}</td></tr>"
        for one in run.interventions
    )
    return (
        "<h2>Interventions <small>of watch, by itself</small></h2>"
        + table(("", "#epoch", "action", "because of", "changes"), rows)
        if rows
        else ""
    )


def _health(run: History) -> str:
    def span(s: Signal) -> str:
        if s.low is not None and s.high is not None:
            return f"{s.low:.3g} – {s.high:.3g}"
        if s.low is not None:
            return f"≥ {s.low:.3g}"
        return f"≤ {s.high:.3g}" if s.high is not None and math.isfinite(s.high) else "–"

    words = {
        True: '<td class="good">ok</td>',
        False: '<td class="bad">outside</td>',
        None: '<td class="soft">too few lines</td>',
    }
    rows = "".join(
        f'<tr><td>{e(s.name)}</td><td class="n">{e(number(s.value, 3))}</td><td'
        f' class="n">{e(span(s))}</td>{words[s.ok]}<td class="soft">{e(s.meaning)}</td></tr>'
        for s in run.signals
    )
    return "<h2>Health</h2>" + table(("signal", "#now", "#healthy", "", "what it says"), rows)


def _curves(run: History) -> str:
    drawn = curves(run.rows, run.settings, run.best, marks(run.interventions, run.rows))
    if not drawn:
        return ""
    last = run.evaluations[-1] if run.evaluations else None
    notes = ["Faint: as journalled, line: smoothed"]
    if last and last.get("extractor") is None:
        notes.append(
            f"{last.get('metric')}: over {number(last.get('samples'))} held-out {run.unit}, lower"
            " is better"
        )
    elif last:
        notes.append(
            f"{last.get('metric')}: {number(last.get('samples'))} generated against"
            f" {number(last.get('reals'))} real images, features {last.get('extractor')}"
        )
    if run.metric == "frechet_standin":
        notes.append(
            "a stand-in for the usual features, which had no weights here: compare it only between"
            " runs of the same extractor"
        )
    return (
        '<h2>Curves</h2><div class="curves">'
        + "".join(f"<figure>{svg}</figure>" for svg in drawn.values())
        + "</div>"
        f'<p class="soft">{e("; ".join(notes))}.</p>'
    )


def _checkpoints(run: History) -> str:
    if not run.checkpoints:
        return ""
    best = (run.best or {}).get("step")
    rows = "".join(
        f'<tr><td class="n">{step}</td><td class="n">{e(number(run.epoch_of(step)))}</td><td'
        f' class="n">{size / 1e6:.1f} MB</td><td>{"<b>best</b>" if step == best else ""}</td></tr>'
        for step, size in run.checkpoints
    )
    return "<h2>Checkpoints</h2>" + table(
        ("#step", "#epoch", "#size", ""), rows, ' style="width: auto"'
    )


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """{"evaluate": {"samples": 500}} -> {"evaluate.samples": "500"}."""
    out = {}
    for key, value in section.items():
        if isinstance(value, dict) and value:
            out |= flat(value, f"{prefix}{key}.")
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
            out[f"{prefix}{key}"] = text.removesuffix("\n").removesuffix("\n...")
    return out


def _settings(run: History) -> str:
    chosen, resolved = flat(run.overrides), flat(run.config)
    if not resolved and not chosen:
        return ""
    changed = {
        key: shown(value)
        for key, value in run.values.items()
        if key not in run.config or run.config[key] != value
    }

    def lines(keys: list[str]) -> str:
        return (
            "<table>"
            + "".join(
                f'<tr class="{"set" if key in chosen else "default"}"><td>{e(key)}</td><td><code>{e((chosen | resolved)[key])}</code>'
                + (
                    f' → <code>{e(changed[key])}</code> <span class="soft">in flight</span>'
                    if key in changed
                    else ""
                )
                + "</td></tr>"
                for key in keys
            )
            + "</table>"
        )

    keys = list(chosen | resolved)
    guide = [key for key in keys if key.startswith("watch.moves.") and key not in chosen]
    return (
        f"<h2>Settings <small>marked: set by the user ({len(chosen)}); the rest are defaults; run"
        f" id {e(run.identity.get('id', '–'))}, data"
        f" {e(run.identity.get('data', '–'))}</small></h2><div"
        f' class="settings">{lines([key for key in keys if key not in guide])}</div>'
        + (
            "<details><summary>The tuning guide: what watch advises, by"
            f" rule</summary>{lines(guide)}</details>"
            if guide
            else ""
        )
    )


def _attempts(run: History) -> str:
    rows, before = "", None
    for name, attempt in run.attempts.items():
        batch, git = attempt.get("batch") or {}, attempt.get("git") or {}
        split = (
            f"{batch.get('global')} = {batch.get('ranks')} ranks × {batch.get('accumulation')}"
            f" accumulation × {batch.get('per_rank')}"
            if batch
            else "–"
        )
        where = [str(attempt[key]) for key in ("device", "engine") if attempt.get(key)]
        commit = str(git.get("commit") or "–")[:12] + (" + changes" if git.get("dirty") else "")
        rows += (
            "<tr><td"
            f' class="time">{e(name)}</td><td>{e(moment(attempt.get("started")))}</td><td>{e(moment(attempt.get("ended")))}</td>'
            f"<td>{e(attempt.get('cause') or '–')}</td><td>{e(attempt.get('host') or '–')}</td>"
            f"<td>{e(number(attempt.get('processes')))} ×"
            f" {e(', '.join(where) or '?')}</td><td>{e(split)}</td><td><code>{e(commit)}</code></td></tr>"
        )
        around = (attempt.get("argv"), attempt.get("versions"))
        if around != before:
            argv = " ".join(map(str, attempt.get("argv") or []))
            versions = "  ".join(
                f"{key} {value}" for key, value in (attempt.get("versions") or {}).items()
            )
            rows += (
                f'<tr><td></td><td colspan="7"><code>{e(argv)}</code><br><span'
                f' class="soft">{e(versions)}</span></td></tr>'
            )
        before = around
    if not rows:
        return ""
    return (
        "<h2>Attempts <small>command and versions where they differ from the attempt"
        " before</small></h2>"
        + table(
            (
                "",
                "started",
                "ended",
                "cause of the end",
                "host",
                "processes",
                "global batch",
                "commit",
            ),
            rows,
        )
    )


def _events(run: History) -> str:
    if not run.events:
        return ""
    tail = run.events[-EVENTS:]
    rows = "".join(
        f'<tr><td class="time">{e(moment(event.get("time")))}</td><td'
        f' class="time">{e(event.get("event", "–"))}</td><td><code>'
        + e(
            "  ".join(
                f"{key}={value if isinstance(value, str) else json.dumps(value)}"
                for key, value in event.items()
                if key not in ("time", "event")
            )
        )
        + "</code></td></tr>"
        for event in reversed(tail)
    )
    return (
        f"<h2>Events <small>the last {len(tail)} of {len(run.events)}, newest"
        f" first</small></h2><table>{rows}</table>"
    )
