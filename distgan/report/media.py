"""Pictures, sounds and the first lines of tables of a run, as data for its page. Imports no torch.

Only files inside the run folder are read (history.py excludes links), each up to a size; pictures
are decoded and encoded anew.
"""

import base64
import csv
import io
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distgan.core.errors import DataError
from distgan.core.reading import open_regular
from distgan.data.labels import Labels
from distgan.report.formatting import number
from distgan.runs.history import History
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.codecs import image as image_codec
from distgan.shards.codecs import image_files

MAX_GRIDS, MAX_CLIP_PICTURES, MAX_GENERATED = 8, 4, 4
FRAME_PIXELS, LARGE_PIXELS = 640, 1024
MIN_ENLARGED = 100  # pixels, of grids of small images
SPECTROGRAM, MAX_SPECTROGRAMS = (320, 96), 60  # pixels; of the first sounds
# Of results: a few large pictures, one below the other, and many small ones.
SMALL_PIXELS, MAX_SMALL, MAX_LARGE = 256, 36, 3
MAX_SOUND_BYTES = 2_000_000  # of all sounds together: a page must fit into a mail
MAX_TABLES, CSV_BYTES, CSV_LINES, CSV_COLUMNS, CSV_CHARS = 3, 65536, 8, 12, 60
FORMATS = ("PNG", "JPEG")
PICTURES, TABLES = (".png", ".jpg", ".jpeg"), (".csv",)
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
# Versions of a clip in the order in which they were made.
_VERSIONS = (
    ("before", "input", "denoised", "noisy"),
    ("after", "output", "repaired"),
    ("clean", "target"),
)


# ---- pictures of the training
def samples(run: History) -> dict[str, Any] | None:
    """Return the newest picture, real images beside it, pictures of the training in order
    (`frames`, from two on) and sounds; None without pictures.
    """
    if not run.samples:
        return None
    best, small = (run.best or {}).get("step"), run.kind in ("image", "vector")
    chosen = pick(list(run.samples), best, MAX_GRIDS if small else MAX_CLIP_PICTURES)
    at_best = max((step for step in chosen if best is not None and step <= best), default=None)

    def embed(step: int, pixels: int) -> dict[str, Any]:
        epoch = run.epoch_of(step)
        text = f"step {step}" if epoch is None else f"epoch {epoch:.4g}"
        return figure(run.samples[step], pixels, text, step == at_best)

    pixels = FRAME_PIXELS if small else LARGE_PIXELS
    newest = embed(chosen[-1], pixels)
    frames = [*(embed(step, pixels) for step in chosen[:-1]), newest] if len(chosen) > 1 else []
    return {
        "newest": newest,
        "reals": figure(run.reals, pixels, "real training images") if run.reals else None,
        "frames": frames,
        "chosen": len(chosen),
        "classes": _classes(run) if run.kind == "image" else [],
        # Results have newer sounds of the same clips.
        "sounds": _sounds([] if _result_sounds(run) else run.sounds),
    }


def _classes(run: History) -> list[str]:
    """Return the names of the classes of a grid's rows; none without classes."""
    newest = (list(run.attempts.values()) or [{}])[-1]
    try:
        labels = Labels.from_record(newest["data"]["labels"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return []
    return [labels.names[one] for one in labels.shown()]


def generated(run: History) -> list[tuple[dict[str, Any], int]]:
    """Return the newest pictures of what `distgan generate` has made beside the training, with
    their widths in pixels.
    """
    newest = sorted(run.generated, key=lambda path: path.stat().st_mtime)[-MAX_GENERATED:]
    return [
        (figure(path, LARGE_PIXELS, path.parent.name), min(_size(path)[0], LARGE_PIXELS))
        for path in sorted(newest)
    ]


def pick(steps: list[int], best: int | None, count: int = MAX_GRIDS) -> list[int]:
    """Return at most `count` of the steps, sorted.

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


def figure(path: Path, most: int, text: str, best: bool = False) -> dict[str, Any]:
    """Return a picture for a page, at most `most` pixels wide and high, with its caption."""
    return {"source": picture(path, most), "text": text, "best": best}


def picture(path: Path, most: int) -> str | None:
    """Return the image as a data URI, at most `most` pixels wide and high; None if unreadable."""
    try:
        image, _ = image_files.picture(path, formats=FORMATS)
        image.thumbnail((most, most), Image.Resampling.LANCZOS)
        values = image_files.as_bytes(image, 3 if image.mode == "RGB" else 1)
        image, out = Image.fromarray(values), io.BytesIO()
        # Browsers blur what they enlarge.
        if (times := most // max(image.size)) > 1 and max(image.size) >= MIN_ENLARGED:
            size = image.width * times, image.height * times
            image = image.resize(size, Image.Resampling.NEAREST)
        image.save(out, "JPEG", quality=88, subsampling=0)
    except _UNREADABLE:
        return None
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


# ---- results of the best checkpoint
def results(run: History) -> dict[str, Any] | None:
    """Return counts of files, the first pictures, all sounds and the first tables of results/."""
    if not run.results:
        return None
    kinds = Counter(path.suffix.lower().lstrip(".") or "other" for path in run.results)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    plural = "s" if len(run.results) > 1 else ""
    pictures = [path for path in run.results if path.suffix.lower() in PICTURES]
    tables = [path for path in run.results if path.suffix.lower() in TABLES]
    small, large = _pictures(run, pictures)
    return {
        "files": f"{len(run.results):,} file{plural} ({counts})",
        "megabytes": f"{sum(path.stat().st_size for path in run.results) / 1e6:.3g}",
        "small": small,
        "large": large,
        "shown": len(small) + len(large),
        "pictures": len(pictures),
        "sounds": _sounds(_result_sounds(run)),
        "tables": [_table(path, _name(run, path)) for path in tables[:MAX_TABLES]],
    }


def _pictures(
    run: History, paths: list[Path]
) -> tuple[list[dict[str, Any]], list[tuple[dict[str, Any], int]]]:
    """Return the first small pictures, and the first large ones with their widths in pixels."""
    small: list[dict[str, Any]] = []
    large: list[tuple[dict[str, Any], int]] = []
    for path in paths[: MAX_SMALL + MAX_LARGE]:
        width, height = _size(path)
        if max(width, height) > SMALL_PIXELS:
            if len(large) < MAX_LARGE:
                shown = figure(path, LARGE_PIXELS, _name(run, path))
                large.append((shown, min(width, LARGE_PIXELS)))
        elif len(small) < MAX_SMALL:
            small.append(figure(path, SMALL_PIXELS, path.name))
    return small, large


def _size(path: Path) -> tuple[int, int]:
    """Return width and height in pixels; 0, 0 if the file is unreadable."""
    try:
        with image_codec.opened(path, FORMATS) as image:
            return image.size
    except _UNREADABLE:
        return 0, 0


def _name(run: History, path: Path) -> str:
    return path.relative_to(run.folder / "results").as_posix()


# ---- sounds
def _result_sounds(run: History) -> list[Path]:
    return [path for path in run.results if path.suffix.lower() == ".wav"]


def _sounds(paths: list[Path]) -> dict[str, Any]:
    """Group files such as KEY.before.wav and KEY.after.wav by clip.

    `clips` holds (KEY, {version: (data URI of the sound, of its spectrogram), each None if
    unreadable}); clips beyond MAX_SOUND_BYTES are left out and counted.
    """
    files: dict[str, dict[str, Path]] = {}
    for path in paths:
        clip, _, version = path.stem.rpartition(".")
        files.setdefault(clip or version, {})[version if clip else ""] = path
    clips, bytes_left, shown = [], MAX_SOUND_BYTES, 0
    for clip, versions in files.items():
        size = sum(path.stat().st_size for path in versions.values())
        if size <= bytes_left:
            bytes_left, shown = bytes_left - size, shown + len(versions)
            draws = spectrogram if shown <= MAX_SPECTROGRAMS else lambda path: None
            clips.append((clip, {v: (sound(path), draws(path)) for v, path in versions.items()}))
    return {
        "versions": sorted(
            {version for versions in files.values() for version in versions}, key=_version_order
        ),
        "clips": clips,
        "too_large": len(files) - len(clips),
        "total": len(files),
        "limit_mb": MAX_SOUND_BYTES / 1e6,
    }


def _version_order(version: str) -> tuple[int, str]:
    for position, names in enumerate(_VERSIONS):
        if version in names:
            return position, version
    return len(_VERSIONS), version


def sound(path: Path) -> str | None:
    """Return a WAV file as a data URI; None if it is unreadable or another format."""
    data = _wav(path)
    if data is None:
        return None
    return "data:audio/wav;base64," + base64.b64encode(data).decode("ascii")


def _wav(path: Path) -> bytes | None:
    try:
        with open_regular(path) as file:
            data = file.read(MAX_SOUND_BYTES + 1)  # the file may have grown since its size was read
    except OSError:
        return None
    if len(data) > MAX_SOUND_BYTES or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    return data


def spectrogram(path: Path) -> str | None:
    """Return the spectrogram of a WAV file as a data URI, time to the right and frequency upwards,
    80 dB from black to yellow; None if the file is unreadable or too short.
    """
    from matplotlib import colormaps

    columns, height = SPECTROGRAM
    try:
        wave = audio_codec.to_float(audio_codec.read_wav(_wav(path) or b"")[0]).mean(
            1, dtype=np.float64
        )
    except (OSError, ValueError, RuntimeError, DataError):
        return None
    size = 2 * height
    if len(wave) < size or not np.isfinite(wave).all():
        return None
    starts = np.linspace(0, len(wave) - size, columns).astype(int)
    frames = wave[starts[:, None] + np.arange(size)] * np.hanning(size)
    levels = 20 * np.log10(np.abs(np.fft.rfft(frames, axis=1))[:, :height] + 1e-9)
    shown = np.clip((levels - levels.max()) / 80 + 1, 0, 1)
    image = Image.fromarray((colormaps["magma"](shown.T[::-1])[..., :3] * 255).astype(np.uint8))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


# ---- tables
def _table(path: Path, name: str) -> dict[str, Any]:
    """Return the head and the first rows of a CSV file, or the error that prevents it."""
    try:
        with open_regular(path) as file:
            text = file.read(CSV_BYTES).decode("utf-8", errors="replace")
        lines = list(islice(csv.reader(io.StringIO(text, newline="")), CSV_LINES + 1))
    except (OSError, csv.Error) as error:
        return {"name": name, "error": error}
    columns = max(map(len, lines), default=0)
    cut = f", {CSV_COLUMNS} of {columns} columns" if columns > CSV_COLUMNS else ""
    cells = [[cell[:CSV_CHARS] for cell in line[:CSV_COLUMNS]] for line in lines]
    return {
        "name": name,
        "error": None,
        "note": f"the first lines{cut}; {number(path.stat().st_size / 1e3, 3)} kB",
        "head": cells[0] if cells else [],
        "rows": cells[1:],
    }
