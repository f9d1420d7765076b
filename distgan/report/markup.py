"""How a report looks, and how text of files gets into it. Imports no torch.

Whatever comes from a file of the run goes through `e`, and the page forbids itself to load or run
anything.
"""

import html

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
  background: var(--panel); border-radius: 8px; } dd { margin: 0; font-size: 16px; font-weight: 600; } dd small {
  display: block; font-weight: 400; color: var(--soft); font-size: 12px; line-height: 1.35; }
table { border-collapse: collapse; width: 100%; font-size: 13px; } th { text-align: left; font-weight: 500; color: var(--soft); }
th, td { padding: 3px 14px 3px 0; vertical-align: top; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
td.time { white-space: nowrap; width: 1%; } td.n, th.n { text-align: right; white-space: nowrap; } tr.set td { background: var(--mark); }
.good { color: var(--good); } .bad { color: var(--bad); } td.good, td.bad { white-space: nowrap; }
.finding { border-left: 3px solid var(--warn); padding: 2px 0 2px 12px; margin: 10px 0; } .finding.note { border-color: var(--line); }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(430px, 100%), 1fr)); gap: 14px 24px; } .curves svg { width: 100%; height: auto; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif !important; }
.samples { display: flex; flex-wrap: wrap; gap: 18px; } .samples > figure { flex: 1 1 420px; } .thumbs { flex: 1 1 520px; display: grid; align-content: start;
  grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px; } figure { margin: 0; } img { width: 100%; display: block; border-radius: 4px; }
.thumbs.small { grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); } audio { width: 100%; min-width: 180px; height: 32px; display: block; }
table.sounds td { border: 0; } figcaption { overflow-wrap: anywhere; } details { margin: 10px 0; } summary { cursor: pointer; color: var(--soft); } .scroll { overflow-x: auto; }
.settings { columns: 3 300px; column-gap: 28px; } .settings table { break-inside: auto; } .settings tr { break-inside: avoid; }
code, pre { font: 12px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
"""


def document(title: str, body: str) -> str:
    """A page that holds all it needs; `body` is HTML, `title` is text."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta'
        f' charset="utf-8">\n<title>{e(title)}</title>\n<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; img-src data:; media-src data:; style-src"
        ' \'unsafe-inline\'">\n<meta name="viewport" content="width=device-width,'
        f' initial-scale=1">\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n'
    )


def e(value) -> str:
    """Text of a file made harmless in HTML."""
    return html.escape(str(value))


def number(value, digits: int = 4) -> str:
    """0.61234 -> `0.6123`, 12345.0 -> `12,345`, None -> `–`."""
    if not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def table(heads: tuple[str, ...], rows: str, attributes: str = "") -> str:
    """`rows` is HTML; a head that begins with # stands over a column of numbers."""
    cells = "".join(
        f'<th class="n">{e(head[1:])}</th>' if head.startswith("#") else f"<th>{e(head)}</th>"
        for head in heads
    )
    return f"<table{attributes}><tr>{cells}</tr>{rows}</table>"


def moment(text: str | None) -> str:
    """`2026-01-02T03:04:05.678+00:00` -> `2026-01-02 03:04:05`."""
    return str(text)[:19].replace("T", " ") if text else "–"
