"""One run as one HTML page that needs nothing else: no script, no link, pictures and curves inside. Imports no torch.

Whatever comes from a file of the run goes through `e`, and the page forbids itself to load or run anything.
"""

import base64
import html
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import yaml
from PIL import Image

from distgan.console import clock
from distgan.history import History
from distgan.plots import curves
from distgan.watch import Signal

GRIDS = 8
EVENTS = 40
THUMB_PIXELS, LARGE_PIXELS = 320, 1024
STYLE = """
:root { color-scheme: light dark; --bg: #fff; --ink: #1c2128; --soft: #66707c; --line: #e3e6ea; --panel: #f6f7f9; --good: #1a7f4b; --bad: #c9302c;
  --warn: #a15c00; --mark: #fff4cf; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171b; --ink: #dde2e8; --soft: #8e98a4; --line: #2b3138; --panel: #1b1f24; --good: #4cc38a;
  --bad: #ff7b72; --warn: #e0a030; --mark: #3d3414; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 28px 24px 60px; max-width: 1160px; background: var(--bg); color: var(--ink);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; font-variant-numeric: tabular-nums; }
h1 { font-size: 22px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; } h1 small { font-weight: 400; color: var(--soft); font-size: 15px; }
h2 { font-size: 15px; margin: 34px 0 10px; padding-bottom: 4px; border-bottom: 1px solid var(--line); }
h2 small, .soft, figcaption, dt { color: var(--soft); font-weight: 400; font-size: 13px; }
p { margin: 6px 0; } .verdict { font-size: 15px; }
.badge { display: inline-block; padding: 1px 9px; border-radius: 9px; font-size: 12px; font-weight: 600; color: #fff; background: #66707c;
  vertical-align: 3px; margin-right: 6px; } .done { background: #1a7f4b; } .running { background: #2563c9; } .failed { background: #c9302c; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); gap: 10px 18px; margin: 16px 0 0; padding: 12px 16px;
  background: var(--panel); border-radius: 8px; } dd { margin: 0; font-size: 16px; font-weight: 600; } dd small { display: block; font-weight: 400; color: var(--soft); font-size: 12px; line-height: 1.35; }
table { border-collapse: collapse; width: 100%; font-size: 13px; } th { text-align: left; font-weight: 500; color: var(--soft); }
th, td { padding: 3px 14px 3px 0; vertical-align: top; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
td.time { white-space: nowrap; width: 1%; } td.n, th.n { text-align: right; white-space: nowrap; } tr.set td { background: var(--mark); } .good { color: var(--good); } .bad { color: var(--bad); }
.finding { border-left: 3px solid var(--warn); padding: 2px 0 2px 12px; margin: 10px 0; } .finding.note { border-color: var(--line); }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(430px, 100%), 1fr)); gap: 14px 24px; } .curves svg { width: 100%; height: auto; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif !important; }
.samples { display: flex; flex-wrap: wrap; gap: 18px; } .samples > figure { flex: 1 1 420px; } .thumbs { flex: 1 1 520px; display: grid; align-content: start;
  grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px; } figure { margin: 0; } img { width: 100%; display: block; border-radius: 4px; }
.settings { columns: 3 300px; column-gap: 28px; } .settings table { break-inside: auto; } .settings tr { break-inside: avoid; }
code, pre { font: 12px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
"""


def render(run: History, now: datetime | None = None) -> str:
    """The page of a run, as it stands at `now`."""
    now = now or datetime.now(UTC)
    sections = [_facts(run), _findings(run), _curves(run), _samples(run), _health(run), _checkpoints(run), _settings(run), _attempts(run), _events(run)]
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{e(run.name)}</title>\n'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src \'unsafe-inline\'">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n<body>\n'
            f'<h1><small>{e(run.folder.parent.name)} /</small> {e(run.folder.name)}</h1>\n'
            f'<p class="verdict"><span class="badge {e(run.state)}">{e(run.state)}</span>{e(verdict(run, now))}</p>\n'
            + "\n".join(section for section in sections if section)
            + f'\n<p class="soft">Written {e(now.strftime("%Y-%m-%d %H:%M"))} UTC by distgan report.</p>\n</body>\n</html>\n')


def verdict(run: History, now: datetime | None = None) -> str:
    """One line: how far, how good, what is wrong."""
    epochs = run.config.get("epochs")
    parts = [f"epoch {run.epoch:.4g}" + (f" of {epochs:.4g}" if epochs else "")]
    if not run.rows:
        parts = ["has just begun: the journal is empty"]
    if run.best:
        parts.append(f"best {run.best.get('metric')} {number(run.best.get('score'))} at epoch {number(run.best.get('epoch'))}")
    elif run.rows:
        parts.append("not evaluated yet")
    warnings = [finding.rule for finding in run.findings if finding.level == "warning"]
    judged = any(signal.ok is not None for signal in run.signals[:-2])
    parts.append(f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''} ({', '.join(warnings)})" if warnings else
                 "no warnings" if judged else "too few journal lines to judge its health")
    if run.status.get("cause") and run.state != "done":
        parts.append(f"cause: {run.status['cause']}")
    if (silent := run.silent_s(now)) is not None:
        parts.append(f"no heartbeat for {clock(silent)}: it may have been killed; the same command goes on with it")
    return "; ".join(parts)


def e(value) -> str:
    """Text of a file made harmless in HTML."""
    return html.escape(str(value))


def number(value, digits: int = 4) -> str:
    """0.61234 -> `0.6123`, 12345.0 -> `12,345`, None -> `–`."""
    if not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 10 ** digits else f"{value:.{digits}g}"


def _facts(run: History) -> str:
    batch = (list(run.attempts.values()) or [{}])[-1]
    data = batch.get("data") or {}
    best, speed = run.best or {}, run.recent("samples_per_second")
    split = f"{number(data.get('train'))} train, {number(data.get('validation'))} held out" if data else ""
    facts = [
        ("images seen", f"{run.images_seen:,}", split),
        ("epochs", number(run.epoch), f"of {number(run.config['epochs'])}" if run.config.get("epochs") else ""),
        (f"best {best.get('metric', 'score')}", number(best.get("score")), f"epoch {number(best['epoch'])}" if best.get("epoch") is not None else ""),
        ("wall time", clock(run.wall_s), f"{len(run.attempts)} attempt{'s' if len(run.attempts) != 1 else ''}"),
        ("processes", number(batch.get("processes")), batch.get("device") or ""),
        ("recent speed", number(speed, 3), "images/s" if speed is not None else ""),
    ]
    return "<dl>" + "".join(f"<div><dt>{e(name)}</dt><dd>{e(value)} <small>{e(note)}</small></dd></div>" for name, value, note in facts) + "</dl>"


def _findings(run: History) -> str:
    if not run.findings:
        return ""
    return "<h2>Findings</h2>" + "".join(
        f'<div class="finding {e(f.level)}"><b>{e(f.rule)}</b> <span class="soft">since epoch {e(number(f.epoch))}</span>'
        f'<p>{e(f.message)}.</p><p><span class="soft">Moves:</span> {e(f.advice)}.</p></div>' for f in run.findings)


def _health(run: History) -> str:
    def span(s: Signal) -> str:
        if s.low is not None and s.high is not None:
            return f"{s.low:.3g} – {s.high:.3g}"
        return f"≥ {s.low:.3g}" if s.low is not None else f"≤ {s.high:.3g}"

    words = {True: '<td class="good">ok</td>', False: '<td class="bad">outside</td>', None: '<td class="soft">too few lines</td>'}
    rows = "".join(f'<tr><td>{e(s.name)}</td><td class="n">{e(number(s.value, 3))}</td><td class="n">{e(span(s))}</td>{words[s.ok]}'
                   f'<td class="soft">{e(s.meaning)}</td></tr>' for s in run.signals)
    return ('<h2>Health</h2><table><tr><th>signal</th><th class="n">now</th><th class="n">healthy</th><th></th><th>what it says</th></tr>' + rows + "</table>")


def _curves(run: History) -> str:
    drawn = curves(run.rows, run.settings, run.best)
    if not drawn:
        return ""
    last = run.evaluations[-1] if run.evaluations else None
    notes = ["Faint: as journalled, line: smoothed"]
    if last:
        notes.append(f"{last.get('metric')}: {number(last.get('samples'))} generated against {number(last.get('reals'))} real images, "
                     f"features {last.get('extractor')}")
    if run.metric == "frechet_standin":
        notes.append("a stand-in for the usual features, which had no weights here: compare it only between runs of the same extractor")
    return ('<h2>Curves</h2><div class="curves">' + "".join(f"<figure>{svg}</figure>" for svg in drawn.values()) + "</div>"
            f'<p class="soft">{e("; ".join(notes))}.</p>')


def pick(steps: list[int], best: int | None, count: int = GRIDS) -> list[int]:
    """At most `count` of the steps: the first, the last, the last one not after `best`, and others evenly between."""
    steps = sorted(steps)
    if len(steps) <= count:
        return steps
    wanted = {steps[0], steps[-1]} | {max((step for step in steps if best is not None and step <= best), default=steps[-1])}
    for part in range(1, count - 1):
        if len(wanted) < count:
            wanted.add(steps[round(part * (len(steps) - 1) / (count - 1))])
    return sorted(wanted)


def _samples(run: History) -> str:
    if not run.samples:
        return ""
    best = (run.best or {}).get("step")
    chosen = pick(list(run.samples), best)
    at_best = max((step for step in chosen if best is not None and step <= best), default=None)

    def figure(step: int, pixels: int) -> str:
        epoch = run.epoch_of(step)
        text = f"epoch {epoch:.4g}" if epoch is not None else f"step {step}"
        mark = " <b>best</b>" if step == at_best else ""
        source = picture(run.samples[step], pixels)
        shown = f'<img src="{source}" alt="samples at {e(text)}">' if source else '<p class="bad">cannot be read</p>'
        return f"<figure>{shown}<figcaption>{e(text)}{mark}</figcaption></figure>"

    thumbs = "".join(figure(step, THUMB_PIXELS) for step in chosen) if len(chosen) > 1 else ""
    return (f'<h2>Samples <small>the same noise each time; {len(chosen)} of {len(run.samples)} grids</small></h2><div class="samples">'
            + figure(chosen[-1], LARGE_PIXELS) + (f'<div class="thumbs">{thumbs}</div>' if thumbs else "") + "</div>")


def picture(path: Path, pixels: int) -> str | None:
    """A data URI of the image, at most `pixels` wide and high; None where it cannot be read."""
    try:
        with Image.open(path) as image:
            image.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
            out = io.BytesIO()
            image.convert("L" if image.mode in ("L", "1", "I;16") else "RGB").save(out, "JPEG", quality=88, subsampling=0)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def _checkpoints(run: History) -> str:
    if not run.checkpoints:
        return ""
    best = (run.best or {}).get("step")
    rows = "".join(f'<tr><td class="n">{step}</td><td class="n">{e(number(run.epoch_of(step)))}</td><td class="n">{size / 1e6:.1f} MB</td>'
                   f'<td>{"<b>best</b>" if step == best else ""}</td></tr>' for step, size in run.checkpoints)
    return ('<h2>Checkpoints</h2><table style="width: auto"><tr><th class="n">step</th><th class="n">epoch</th><th class="n">size</th><th></th></tr>'
            + rows + "</table>")


def flat(section: dict, prefix: str = "") -> dict[str, str]:
    """{"evaluate": {"samples": 500}} -> {"evaluate.samples": "500"}."""
    out = {}
    for key, value in section.items():
        if isinstance(value, dict) and value:
            out |= flat(value, f"{prefix}{key}.")
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=10 ** 6, allow_unicode=True)
            out[f"{prefix}{key}"] = text.removesuffix("\n").removesuffix("\n...")
    return out


def _settings(run: History) -> str:
    chosen, resolved = flat(run.overrides), flat(run.config)
    if not resolved and not chosen:
        return ""
    rows = "".join(f'<tr class="{"set" if key in chosen else "default"}"><td>{e(key)}</td><td><code>{e(value)}</code></td></tr>'
                   for key, value in (chosen | resolved).items())
    return (f'<h2>Settings <small>marked: set by the user ({len(chosen)}); the rest are defaults; run id {e(run.identity.get("id", "–"))}, '
            f'data {e(run.identity.get("data", "–"))}</small></h2>'
            f'<div class="settings"><table>{rows}</table></div>')


def _attempts(run: History) -> str:
    rows, before = "", None
    for name, attempt in run.attempts.items():
        batch, git = attempt.get("batch") or {}, attempt.get("git") or {}
        split = (f"{batch.get('global')} = {batch.get('ranks')} ranks × {batch.get('accumulation')} accumulation × {batch.get('per_rank')}" if batch else "–")
        where = [str(attempt[key]) for key in ("device", "engine") if attempt.get(key)]
        commit = str(git.get("commit") or "–")[:12] + (" + changes" if git.get("dirty") else "")
        rows += (f'<tr><td>{e(name)}</td><td>{e(_moment(attempt.get("started")))}</td><td>{e(_moment(attempt.get("ended")))}</td>'
                 f'<td>{e(attempt.get("cause") or "–")}</td><td>{e(attempt.get("host") or "–")}</td>'
                 f'<td>{e(number(attempt.get("processes")))} × {e(", ".join(where) or "?")}</td><td>{e(split)}</td><td><code>{e(commit)}</code></td></tr>')
        around = (attempt.get("argv"), attempt.get("versions"))
        if around != before:
            argv = " ".join(map(str, attempt.get("argv") or []))
            versions = "  ".join(f"{key} {value}" for key, value in (attempt.get("versions") or {}).items())
            rows += f'<tr><td></td><td colspan="7"><code>{e(argv)}</code><br><span class="soft">{e(versions)}</span></td></tr>'
        before = around
    if not rows:
        return ""
    heads = "".join(f"<th>{head}</th>" for head in ("", "started", "ended", "cause of the end", "host", "processes", "global batch", "commit"))
    return ("<h2>Attempts <small>command and versions where they differ from the attempt before</small></h2>"
            f"<table><tr>{heads}</tr>{rows}</table>")


def _events(run: History) -> str:
    if not run.events:
        return ""
    tail = run.events[-EVENTS:]
    rows = "".join(
        f'<tr><td class="time">{e(_moment(event.get("time")))}</td><td class="time">{e(event.get("event", "–"))}</td><td><code>'
        + e("  ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in event.items() if key not in ("time", "event")))
        + "</code></td></tr>" for event in reversed(tail))
    return f"<h2>Events <small>the last {len(tail)} of {len(run.events)}, newest first</small></h2><table>{rows}</table>"


def _moment(text: str | None) -> str:
    """`2026-01-02T03:04:05.678+00:00` -> `2026-01-02 03:04:05`."""
    return str(text)[:19].replace("T", " ") if text else "–"
