"""What a run made, inside its page: pictures, sounds, the beginnings of tables. Imports no torch.

Only files of the run folder itself come in (history.py refuses links), each up to a size, pictures
decoded and written anew.
"""

import base64
import csv
import io
from collections import Counter
from pathlib import Path

from PIL import Image

from distgan.report.markup import e, number
from distgan.runs.history import History

GRIDS = 8
THUMB_PIXELS, LARGE_PIXELS = 320, 1024
SMALL_PIXELS, SMALL_SHOWN, LARGE_SHOWN = (
    256,
    36,
    3,
)  # of results: a few large pictures, one below the other, and many small ones
SOUND_BYTES = 2_000_000  # of all sounds together; a page is to be mailed, too
CSV_SHOWN, CSV_BYTES, CSV_LINES, CSV_COLUMNS, CSV_LETTERS = 3, 65536, 8, 12, 60
PICTURES, TABLES = (".png", ".jpg", ".jpeg"), (".csv",)


# ---- pictures that were made while the run went on
def samples(run: History) -> str:
    """The newest picture large and others of the run beside it, or, where they are of sound and
    need their size, folded away below.
    """
    if not run.samples:
        return ""
    best = (run.best or {}).get("step")
    chosen = pick(list(run.samples), best, GRIDS if run.kind == "image" else 4)
    at_best = max((step for step in chosen if best is not None and step <= best), default=None)

    def figure(step: int, pixels: int) -> str:
        epoch = run.epoch_of(step)
        text = f"epoch {epoch:.4g}" if epoch is not None else f"step {step}"
        return _figure(run.samples[step], pixels, text, " <b>best</b>" if step == at_best else "")

    newest = figure(chosen[-1], LARGE_PIXELS)
    if run.kind == "image":
        thumbs = "".join(figure(step, THUMB_PIXELS) for step in chosen) if len(chosen) > 1 else ""
        return (
            f"<h2>Samples <small>the same noise each time; {len(chosen)} of {len(run.samples)}"
            ' grids</small></h2><div class="samples">'
            + newest
            + (f'<div class="thumbs">{thumbs}</div>' if thumbs else "")
            + "</div>"
        )
    earlier = "".join(figure(step, LARGE_PIXELS) for step in chosen[:-1])
    folded = (
        f"<details><summary>{len(chosen) - 1} earlier ones</summary>{earlier}</details>"
        if earlier
        else ""
    )
    return (
        f"<h2>Samples <small>the same held-out clips each time; {len(chosen)} of {len(run.samples)}"
        " pictures</small></h2>"
        f'<div class="samples">{newest}</div>{folded}'
        + ("" if _results_sound(run) else _heard(run.sounds))
    )


def pick(steps: list[int], best: int | None, count: int = GRIDS) -> list[int]:
    """At most `count` of the steps.

    The first, the last, the last one not after `best`, and others evenly between.
    """
    steps = sorted(steps)
    if len(steps) <= count:
        return steps
    wanted = {steps[0], steps[-1]} | {
        max((step for step in steps if best is not None and step <= best), default=steps[-1])
    }
    for part in range(1, count - 1):
        if len(wanted) < count:
            wanted.add(steps[round(part * (len(steps) - 1) / (count - 1))])
    return sorted(wanted)


def _figure(path: Path, pixels: int, text: str, mark: str = "") -> str:
    source = picture(path, pixels)
    shown = (
        f'<img src="{source}" alt="{e(text)}">' if source else '<p class="bad">cannot be read</p>'
    )
    return f"<figure>{shown}<figcaption>{e(text)}{mark}</figcaption></figure>"


def picture(path: Path, pixels: int) -> str | None:
    """A data URI of the image, at most `pixels` wide and high; None where it cannot be read."""
    try:
        with Image.open(path) as image:
            image.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
            out = io.BytesIO()
            image.convert("L" if image.mode in ("L", "1", "I;16") else "RGB").save(
                out, "JPEG", quality=88, subsampling=0
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


# ---- what the recipe made of the best checkpoint
def results(run: History) -> str:
    """How many files of which kind, the first pictures, sounds, and the first lines of tables."""
    if not run.results:
        return ""
    kinds = Counter(path.suffix.lower().lstrip(".") or "other" for path in run.results)
    size = sum(path.stat().st_size for path in run.results)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    return (
        f"<h2>Results <small>of the best checkpoint, in results/: {len(run.results):,}"
        f" file{'s' if len(run.results) > 1 else ''} ({e(counts)}), {size / 1e6:.3g}"
        " MB</small></h2>" + _pictures(run) + _heard(_results_sound(run)) + _tables(run)
    )


def _pictures(run: History) -> str:
    """The first small pictures on a sheet, after the first large ones, none larger than it is."""
    paths = [path for path in run.results if path.suffix.lower() in PICTURES]
    small, large = [], []
    for path in paths[: SMALL_SHOWN + LARGE_SHOWN]:
        width, height = _size(path)
        if max(width, height) <= SMALL_PIXELS:
            small.append(_figure(path, SMALL_PIXELS, path.name))
        elif len(large) < LARGE_SHOWN:
            large.append(
                '<div style="max-width:'
                f' {min(width, LARGE_PIXELS)}px">{_figure(path, LARGE_PIXELS, _name(run, path))}</div>'
            )
    shown = len(small[:SMALL_SHOWN]) + len(large)
    more = f'<p class="soft">{shown} of {len(paths):,} pictures</p>' if len(paths) > shown else ""
    return (
        "".join(large)
        + (f'<div class="thumbs small">{"".join(small[:SMALL_SHOWN])}</div>' if small else "")
        + more
    )


def _size(path: Path) -> tuple[int, int]:
    """Width and height in pixels; 0, 0 where the file cannot be read."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0


def _name(run: History, path: Path) -> str:
    return path.relative_to(run.folder / "results").as_posix()


# ---- sound
def _results_sound(run: History) -> list[Path]:
    """Where there are any, those beside pictures are left out.

    They are earlier ones of the same clips.
    """
    return [path for path in run.results if path.suffix.lower() == ".wav"]


def _heard(paths: list[Path]) -> str:
    """Players in a table: a line for each clip, a column for each version of it, of files such as
    KEY.before.wav and KEY.after.wav.
    """
    clips: dict[str, dict[str, Path]] = {}
    for path in paths:
        clip, _, version = path.stem.rpartition(".")
        clips.setdefault(clip or version, {})[version if clip else ""] = path
    if not clips:
        return ""
    versions = sorted({version for found in clips.values() for version in found}, key=_place)
    rows, left, silent = "", SOUND_BYTES, 0
    for clip, found in clips.items():
        size = sum(path.stat().st_size for path in found.values())
        sources = {version: sound(path) for version, path in found.items()} if size <= left else {}
        if not sources:
            silent += 1
            continue
        left -= size
        rows += (
            f"<tr><td>{e(clip)}</td>"
            + "".join(
                f"<td>{_player(sources.get(version), version in found)}</td>"
                for version in versions
            )
            + "</tr>"
        )
    heads = "".join(f"<th>{e(version)}</th>" for version in versions)
    more = (
        f'<p class="soft">{silent} of {len(clips)} clips are too large to be heard here'
        f" ({SOUND_BYTES / 1e6:g} MB in all): see the files</p>"
        if silent
        else ""
    )
    return (f'<table class="sounds"><tr><th></th>{heads}</tr>{rows}</table>' if rows else "") + more


def _place(version: str) -> tuple[int, str]:
    """What came in, what was made of it, what it should be."""
    order = (
        ("before", "input", "denoised", "noisy"),
        ("after", "output", "repaired"),
        ("clean", "target"),
    )
    return next((at for at, names in enumerate(order) if version in names), len(order)), version


def _player(source: str | None, there: bool) -> str:
    return (
        f'<audio controls src="{source}"></audio>'
        if source
        else '<span class="bad">cannot be read</span>'
        if there
        else ""
    )


def sound(path: Path) -> str | None:
    """A data URI of a WAV file; None where it is none, or cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(SOUND_BYTES + 1)  # it may have grown since it was looked at
    except OSError:
        return None
    if len(data) > SOUND_BYTES or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    return "data:audio/wav;base64," + base64.b64encode(data).decode("ascii")


# ---- tables
def _tables(run: History) -> str:
    paths = [path for path in run.results if path.suffix.lower() in TABLES]
    return "".join(_head(path, _name(run, path)) for path in paths[:CSV_SHOWN])


def _head(path: Path, name: str) -> str:
    """The first lines of a CSV file."""
    try:
        with open(path, "rb") as file:
            text = file.read(CSV_BYTES).decode("utf-8", errors="replace")
        lines = [
            row
            for row, _ in zip(
                csv.reader(io.StringIO(text, newline="")), range(CSV_LINES + 1), strict=False
            )
        ]
    except (OSError, csv.Error) as error:
        return f'<p>{e(name)} <span class="bad">cannot be read: {e(error)}</span></p>'
    rows = "".join(
        "<tr>"
        + "".join(f"<{tag}>{e(cell[:CSV_LETTERS])}</{tag}>" for cell in line[:CSV_COLUMNS])
        + "</tr>"
        for line, tag in zip(lines, ["th"] + ["td"] * CSV_LINES, strict=False)
    )
    wide = max(map(len, lines), default=0)
    cut = f", {CSV_COLUMNS} of {wide} columns" if wide > CSV_COLUMNS else ""
    return (
        f'<p>{e(name)} <span class="soft">the first lines{cut};'
        f" {number(path.stat().st_size / 1e3, 3)} kB</span></p><div"
        f' class="scroll"><table>{rows}</table></div>'
    )
