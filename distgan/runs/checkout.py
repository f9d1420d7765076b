"""The git checkout that the package belongs to, if any."""

import subprocess
from pathlib import Path
from typing import Any

import distgan
from distgan.core.reading import read_json

ROOT = Path(distgan.__file__).resolve().parents[1]
FAILURES = (OSError, subprocess.SubprocessError)  # what `git` raises


def git(*words: str) -> str:
    """Return what git prints in the checkout. Raise one of FAILURES where there is none, or no git.

    An installed copy may lie inside a repository of its user: that is not its checkout.
    """
    if not (ROOT / "launchers" / "__init__.py").is_file():
        raise FileNotFoundError(f"{ROOT} is no checkout of distgan")
    line = ["git", "-C", str(ROOT), *words]
    return subprocess.run(line, capture_output=True, text=True, check=True, timeout=30).stdout


def version() -> dict[str, Any] | None:
    """Return the commit of the code that runs, and whether files differ from it; None if unknown.

    The copy that a job runs knows them from its git.json (launchers/slurm/snapshot.py).
    """
    try:
        if (ROOT / "git.json").is_file():
            record = read_json(ROOT / "git.json")
            return {"commit": record["commit"], "dirty": bool(record["changed"])}
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(changed)}
    except (*FAILURES, ValueError, KeyError):
        return None
