"""`distgan generate`: images of a trained run's generator, as files."""

import shutil
from pathlib import Path
from typing import Any

from distgan import config, console, trained
from distgan.errors import ConfigError, RunError

USAGE = """usage: distgan generate RUN[@best|@last|@STEP] [count=N] [out=FOLDER] [device=auto|cpu|cuda]

Makes images of a trained run's generator: images/00000.png …, result.csv (a line for each, with the critic's score) and grid.png.
Image i depends on the run's seed and i alone, so a larger count adds files and changes none.

  RUN      a run folder: its best checkpoint, or the last one, or the one of a step
  count    how many (default: 64)
  out      folder to make (default: RUN/generated-STEP)

  distgan generate runs/wgan_flowers/default-1a2b3c4d count=1000
  distgan generate runs/sagan/ngf32-5e6f7a8b@last out=images
"""
MOST = 1_000_000


def main(argv: list[str]) -> int:
    """Returns the exit code."""
    if not argv or {"-h", "--help"}.intersection(argv):
        console.say(USAGE)
        return 0 if argv else 2
    count, out, device = _options(argv[1:])
    checkpoint = trained.locate(argv[0])
    where = checkpoint.parents[1]
    module, run = _settings(where, device)
    target = Path(out).expanduser() if out else where / f"generated-{checkpoint.name}"
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"out={target}: exists and is not empty; give another folder, or move it away")
    _make(module, run, checkpoint, count, target)
    console.say(f"{count} images by {checkpoint}: {target}")
    return 0


def _options(words: list[str]) -> tuple[int, str | None, str]:
    """(count, out, device); ConfigError lists every fault."""
    given: dict[str, Any] = {"count": 64, "out": None, "device": "auto"}
    faults = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in given:
            faults.append(f"  {word[:60]!r} is none of count=N, out=FOLDER, device=auto|cpu|cuda")
        elif key == "count" and not (value.isascii() and value.isdecimal() and 1 <= int(value) <= MOST):
            faults.append(f"  count: found {value[:60]!r}, allowed is 1 to {MOST:,}")
        elif key == "device" and value not in ("auto", "cpu", "cuda"):
            faults.append(f"  device: found {value[:60]!r}, allowed are auto, cpu and cuda")
        else:
            given[key] = int(value) if key == "count" else value
    if faults:
        raise ConfigError("\n".join(["distgan generate RUN …:", *faults]))
    return given["count"], given["out"], given["device"]


def _settings(folder: Path, device: str) -> tuple[Any, config.Run]:
    """The recipe's module and the settings of a run, to be drawn from by one process; ConfigError where its recipe draws nothing from noise."""
    module, run = trained.settings(folder, device)
    if module.Settings.kind != "image":
        there = [str(folder / name) for name in ("results", "samples") if (folder / name).is_dir()]
        raise ConfigError(f"{folder} is a run of {run.recipe}, which turns one signal into another and draws nothing from noise; what it made of held-out "
                          f"{module.Settings.kind}s is in {' and '.join(there) or 'no folder yet: it writes samples/ while it trains'}")
    return module, run


def _make(module: Any, run: config.Run, checkpoint: Path, count: int, target: Path) -> None:
    """The files in `target`, all of them or none."""
    from distgan import results
    from distgan.ranks import Ranks

    ranks = Ranks(run.machine, run.precision)
    recipe = trained.load(module, run, ranks, checkpoint)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        results.write_images(temporary, ranks, recipe.sample, recipe.players["D"], count)
        temporary.replace(target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror}; make room or give access, or name another folder with out=") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    ranks.close()
