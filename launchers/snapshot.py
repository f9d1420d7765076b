"""The code that a job runs: a copy of what is tracked in the checkout, with its uncommitted
changes, shared by all runs of the same content.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import distgan
from distgan import console
from distgan.errors import RunError

ROOT = Path(distgan.__file__).resolve().parents[1]
PARTS = ("distgan", "launchers", "shards")  # what is imported
MAX_BYTES = 64 << 20


def take(home: Path) -> Path | None:
    """The folder home/HASH with the code of this checkout.

    Made where it is not there yet. None where distgan is installed, not checked out.
    """
    try:
        listed = _git(
            "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PARTS
        ).split("\0")
    except (OSError, subprocess.CalledProcessError):
        return None
    files = sorted(name for name in listed if name and (ROOT / name).is_file())
    if not files:
        return None
    size = sum((ROOT / name).stat().st_size for name in files)
    if size > MAX_BYTES:
        largest = max(files, key=lambda name: (ROOT / name).stat().st_size)
        raise RunError(
            f"the code to be copied for the jobs has {size / 1e6:.0f} MB ({largest} is the largest"
            f" file), allowed are {MAX_BYTES / 1e6:.0f}; keep data outside distgan/, launchers/ and"
            " shards/, or list it in .gitignore"
        )
    tree = hashlib.sha256()
    for name in files:
        tree.update(
            f"{name}\0{(ROOT / name).stat().st_mode & 0o111}\0".encode()
            + hashlib.sha256((ROOT / name).read_bytes()).digest()
        )
    folder = home / tree.hexdigest()[:16]
    if folder.exists():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=home))
    temporary.chmod(0o755)
    try:
        for name in files:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, temporary / name)
        (temporary / "dirty.patch").write_text(_git("diff", "HEAD", "--", *PARTS))
        (temporary / "git.json").write_text(
            json.dumps(
                {
                    "commit": _git("rev-parse", "HEAD").strip(),
                    "changed": _git("status", "--short", "--", *PARTS).splitlines(),
                }
            )
        )
        os.rename(temporary, folder)
    except (OSError, subprocess.CalledProcessError) as error:
        if not folder.exists():  # else somebody was faster, with the same content
            raise RunError(f"the code could not be copied to {folder}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
    ).stdout


def link(run: Path, code: Path | None) -> None:
    """RUN/code -> the snapshot that was submitted last."""
    if code is None:
        return
    temporary = run / f".code.{os.getpid()}"
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(code, run))
        temporary.replace(run / "code")
    except OSError as error:
        console.say(f"warning: {run / 'code'} could not be linked: {error.strerror}")
