"""Check the code of a recipe of one's own where it is used for the first time; remember it by its
digest and the settings that may choose what of it runs. Imports no torch until it checks.

The folder `checked` of `$DISTGAN_CACHE`, by default `~/.cache/distgan`, holds an empty file for
each check that passed.
"""

import hashlib
import json
import os
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from distgan import __version__
from distgan.config.introspection import flatten
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.files import cache_folder, make_folder, touch
from distgan.runs.recipe_code import RecipeCode


def inspect_once(module: Any, run: Run, data: Any, ranks: Any = None) -> None:
    """Inspect a recipe of one's own unless this code was inspected before, or
    machine.self_check=false.

    One process; takes seconds. `ranks`: those of the run; without them, the CPU of this process, as
    a launcher does it before it starts others. ConfigError names the lines that are at fault.
    """
    code = getattr(module, "code", None)
    if code is None or not is_due(run, code, "inspected"):
        return
    from distgan.distributed.ranks import Ranks
    from distgan.self_check.findings import require
    from distgan.self_check.inspection import inspect

    console.say(
        f"checking {code.path}: this code has not been checked with these settings"
        " (machine.self_check=false skips it)"
    )
    ranks = ranks or Ranks(run.machine.model_copy(update={"device": "cpu"}), "float32")
    began = time.monotonic()
    require(inspect(module, code.paths, run, ranks, data))
    seconds = time.monotonic() - began
    console.say(f"checked in {seconds:.0f} s: no fault; not repeated until the code changes")
    if others := _imported_from_elsewhere(code):
        console.say(
            f"note: {code.path.name} imports {', '.join(others)}, which is neither an installed"
            " package nor found by an import statement beside it: it is not part of the recipe's"
            " digest, and is not copied for jobs"
        )
    remember(run, code, "inspected")


def _imported_from_elsewhere(code: RecipeCode) -> list[str]:
    """Return the files of modules that are neither installed nor part of the recipe's code."""
    files = {
        str(getattr(module, "__file__", None))
        for name, module in [*sys.modules.items()]
        if name.partition(".")[0] not in ("distgan", "__main__", "__mp_main__")
    }
    return sorted(
        file
        for file in files - code.paths
        if os.path.isabs(file)
        and file.endswith(".py")
        and not file.startswith(sysconfig.get_path("stdlib"))
        and not {"site-packages", "dist-packages"} & {*Path(file).parts}
    )


def is_due(run: Run, code: RecipeCode, check: str) -> bool:
    """Return whether a check of this code is still to be made."""
    if run.machine.self_check is False:
        return False
    return run.machine.self_check is True or not os.path.isfile(_mark(run, code, check))


def remember(run: Run, code: RecipeCode, check: str) -> None:
    """Record that a check of this code passed; where that cannot be written, it is made again."""
    path = _mark(run, code, check)
    try:
        make_folder(path.parent)
        touch(path)
    except OSError:
        return


def _mark(run: Run, code: RecipeCode, check: str) -> Path:
    return cache_folder() / "checked" / f"{code.digest}-{_choices(run)}-{check}-{__version__}"


def _choices(run: Run) -> str:
    """Return 8 hex digits of the recipe's own settings, of numbers only whether they are 0: another
    rate or width runs the same code, another norm or a penalty may not.
    """
    own = type(run).model_fields.keys() - Run.model_fields.keys() - {"evaluate"}
    values = [
        (key, value != 0 if type(value) in (int, float) else value)
        for key, value in flatten(run.model_dump(mode="json", include=own))
    ]
    return hashlib.sha256(json.dumps(sorted(values)).encode()).hexdigest()[:8]
