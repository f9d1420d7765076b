"""The code that a job runs: a copy of the package as it was at submission.

Runs of the same code share one copy. A checkout and an installed package are copied alike, so that
a later edit or upgrade changes no queued job.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import distgan
from distgan.core import console
from distgan.core.errors import RunError
from distgan.runs import checkout

PACKAGE = Path(distgan.__file__).parent
MAX_BYTES = 64 << 20


def take(home: Path) -> Path:
    """Copy the package to home/HASH/distgan unless it is there; return home/HASH.

    RunError where the copy cannot be written or the package is larger than MAX_BYTES.
    """
    files = sorted(_files())
    size = sum((PACKAGE / name).stat().st_size for name in files)
    if size > MAX_BYTES:
        largest = max(files, key=lambda name: (PACKAGE / name).stat().st_size)
        raise RunError(
            f"the code to copy for the job has {size / 1e6:.0f} MB; the limit is"
            f" {MAX_BYTES / 1e6:.0f} MB. The largest file is {largest}; keep data outside"
            f" {PACKAGE}"
        )
    tree = hashlib.sha256()
    for name in files:
        digest = hashlib.sha256((PACKAGE / name).read_bytes()).digest()
        tree.update(f"{name}\0".encode() + digest)
    folder = home / tree.hexdigest()[:16]
    if folder.exists():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=home))
    temporary.chmod(0o755)
    try:
        for name in files:
            target = temporary / "distgan" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PACKAGE / name, target)
        _describe(temporary)
        os.rename(temporary, folder)
    except OSError as error:
        if not folder.exists():  # else another submission was faster, with the same content
            raise RunError(f"the code could not be copied to {folder}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _files() -> Iterator[str]:
    """Yield the files of the package, relative to it; links to folders are followed."""
    for folder, folders, names in os.walk(PACKAGE, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        for name in names:
            if not name.startswith(".") and not name.endswith((".pyc", "~")):
                yield os.path.relpath(os.path.join(folder, name), PACKAGE)


def _describe(folder: Path) -> None:
    """Write the version and, in a git checkout, the commit and uncommitted changes."""
    record: dict[str, object] = {"version": distgan.__version__}
    with contextlib.suppress(*checkout.FAILURES):
        record["commit"] = checkout.git("rev-parse", "HEAD").strip()
        record["changed"] = checkout.git("status", "--short", "--", ".").splitlines()
        (folder / "dirty.patch").write_text(checkout.git("diff", "HEAD", "--", "."))
    (folder / "git.json").write_text(json.dumps(record))


def link(run: Path, code: Path) -> None:
    """Point RUN/code at the snapshot that was submitted last."""
    temporary = run / f".code.{os.getpid()}"
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(code, run))
        temporary.replace(run / "code")
    except OSError as error:
        console.say(f"warning: {run / 'code'} could not be linked: {error.strerror}")
