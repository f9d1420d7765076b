"""The code that a job runs: a copy of the package as it was at submission.

Runs of the same code share one copy. A checkout and an installed package are copied alike, so that
a later edit or upgrade changes no queued job. In a shared folder of runs a copy is used only where
nobody else can have changed it: `fault` says so at submission, and again where the job starts.
"""

import contextlib
import hashlib
import inspect
import json
import os
import secrets
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import distgan
from distgan.core import console
from distgan.core.errors import RunError
from distgan.core.files import (
    make_folder,
    only_owner_writes,
    opened_folder,
    opener,
    remove,
    rename,
    temporary_name,
)
from distgan.runs import checkout

PACKAGE = Path(distgan.__file__).parent
MAX_BYTES = 64 << 20


def take(home: Path) -> Path:
    """Copy the package to home/HASH/distgan, unless a sound copy is there; return its folder.

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
    faults = {path: fault(str(path)) for path in sorted(home.glob(f"{folder.name}*"))}
    if sound := [path for path, why in faults.items() if why is None]:
        return sound[0]
    for why in faults.values():
        console.say(f"note: a copy of the code is not used: {why}. Another one is made")
    if faults:
        folder = folder.with_name(f"{folder.name}-{secrets.token_hex(4)}")
    try:
        make_folder(home)
        with only_owner_writes():
            _copy(files, folder)
    except OSError as error:
        if fault(str(folder)) is not None:  # else another submission was faster
            raise RunError(f"the code could not be copied to {folder}: {error}") from error
    if why := fault(str(folder)):
        raise RunError(
            f"no job can run the copy of the code: {why}. Choose a machine.runs on a file system"
            " that keeps owners and modes"
        )
    return folder


def _copy(files: list[str], folder: Path) -> None:
    temporary = folder.with_name(f".tmp-{secrets.token_hex(8)}")
    try:
        for name in files:
            make_folder((temporary / "distgan" / name).parent)
            with open(temporary / "distgan" / name, "xb", opener=opener) as file:
                file.write((PACKAGE / name).read_bytes())
        _describe(temporary)
        rename(temporary, folder.name)
    finally:
        remove(temporary)


def fault(code: str, *others: str) -> str | None:
    """Return why a copy of the code is not what its name says, or may be another user's; None if it
    is sound.

    `others`: files, and folders of submissions, that must be one's own as well. A job's script runs
    the source of this function, alone, before it imports anything of the copy.
    """
    import hashlib
    import os
    import stat

    used = ("job.pkl", "_submitted.pkl", "submission.json")
    paths = [code, *others]
    contents: dict[str, str] = {}
    for folder in others:
        if os.path.isdir(folder):
            paths += [f"{folder}/{name}" for name in os.listdir(folder) if name.endswith(used)]
    for folder, folders, names in os.walk(code):
        paths += [os.path.join(folder, name) for name in folders + names]
        if "__pycache__" not in folder:
            contents |= {os.path.relpath(os.path.join(folder, name), code): "" for name in names}
    for path in paths:
        about = os.lstat(path)
        if about.st_uid not in (0, os.getuid()):
            return f"{path} belongs to another user"
        if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):
            return f"{path} is a link, or no file"
        if about.st_mode & 0o022:
            return f"{path} may be written by other users"
    tree = hashlib.sha256()
    for name in sorted(contents):
        if name.startswith("distgan/"):
            with open(os.path.join(code, name), "rb") as file:
                digest = hashlib.sha256(file.read()).digest()
            tree.update(f"{name.removeprefix('distgan/')}\0".encode() + digest)
        elif name not in ("git.json", "dirty.patch"):
            return f"{code} has a file {name}"
    if not os.path.basename(code).startswith(tree.hexdigest()[:16]):
        return f"{code} does not hold what its name says"
    return None


def check(code: Path, *others: Path) -> str:
    """Return the line of a job's script that ends the job if `fault` finds one."""
    program = f"{inspect.getsource(fault)}\nimport sys\nsys.exit(fault(*sys.argv[1:]))\n"
    words = [sys.executable, "-IS", "-c", program, *map(str, [code, *others])]
    return f"{shlex.join(words)} || exit 1"


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
    name = temporary_name(run / "code").name
    try:
        with opened_folder(run) as folder:
            os.symlink(os.path.relpath(code, run), name, dir_fd=folder)
            os.replace(name, "code", src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        console.say(f"warning: {run / 'code'} could not be linked: {error.strerror}")
