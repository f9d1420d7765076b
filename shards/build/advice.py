"""Name what a path is that holds no data set, and the command that makes one of it."""

import re
import shlex
from itertools import islice
from pathlib import Path

from distgan.core import console
from distgan.core.errors import did_you_mean
from distgan.shards.audio.pairs import SOUNDS
from distgan.shards.codecs.image_files import EXTENSIONS

MOST_LOOKED_AT = 1000  # files of a folder
ROWS = (".npy", ".csv")
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
OF_A_RUN = ("journal.jsonl", "status.json", "identity.json")


def advice(named: str) -> str:
    """Return a sentence on what `named` is, and the next command. It may be any text."""
    if is_address(named):
        return (
            f"{named} is an address, and data sets are folders: copy it to one, as with `aws s3"
            " sync`, `rclone copy` or a mount, and name that"
        )
    path = Path(named).expanduser()
    made = f"data/{(path.stem if path.is_file() else path.resolve().name) or 'set'}"
    if path.is_file():
        return f"{named} is {_file(path, named, made)}"
    if not path.is_dir():
        near = did_you_mean(path.name, _neighbours(path), f"{path.parent}/".removeprefix("./"))
        return (
            f"no shards in {named}: there is no such folder{near}. Make them:"
            f" {console.command('shard', 'images', named, '--from', 'FOLDER')} (images of your"
            f" own), or {console.command('shard', 'shapes', named)} (drawn ones); `distgan shard"
            " --help` lists all sources"
        )
    if any((path / name).is_file() for name in OF_A_RUN):
        return f"{named} is a run and no data set; show it: {console.command('report', named)}"
    files = list(islice(path.rglob("*"), MOST_LOOKED_AT))
    if sets := sorted({file.parent for file in files if file.name == "dataset.json"})[:3]:
        names = ", ".join(shlex.quote(f"data={one}") for one in sets)
        return f"{named} holds data sets; name one of them: {names}"
    if any(file.name in OF_A_RUN for file in files):
        return f"{named} holds runs and no data set; show them: {console.command('report', named)}"
    suffixes = [file.suffix.lower() for file in files]
    if any(file.suffix.lower() == ".tar" and file.parent in _roots(path) for file in files):
        line = console.command("index", named)
        train = shlex.quote(f"data={named}")
        return f"{named} holds tars, and no index. Make it: {line}; then train with {train}"
    if any(suffix in EXTENSIONS for suffix in suffixes):
        line = console.command("shard", "images", made, "--from", named)
        return f"{named} holds images, and no shards. {_then(line, made)}"
    if any(suffix in SOUNDS for suffix in suffixes):
        if (path / "input").is_dir() and (path / "target").is_dir():
            line = console.command("shard", "audio", made, "--from", named)
            return f"{named} holds pairs of sounds, and no shards. {_then(line, made)}"
        line = console.command("shard", "timbre", made, "--speech", named)
        return (
            f"{named} holds sounds, and no shards. Of clean speech, for the recipe timbre: {line};"
            " of pairs of sounds: distgan shard audio --help"
        )
    what = "is empty" if not suffixes else "holds no images, sounds or tars"
    return (
        f"no shards in {named}, which {what}. `distgan shard --help` lists what shards are made of"
    )


def is_address(named: str) -> bool:
    """Return whether a name is that of a place on a network, such as s3://bucket/set."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", named) is not None


def _file(path: Path, named: str, made: str) -> str:
    name = path.name.lower()
    if name.endswith(ROWS):
        line = console.command("shard", "vectors", made, "--from", named)
        return f"a file; a data set is a folder of shards. {_then(line, made)}"
    if name.endswith(".tar"):
        line = console.command("index", path.parent)
        return f"a tar; a data set is a folder of tars with an index. Make the index: {line}"
    if name.endswith(ARCHIVES):
        folder = str(path.with_name(path.name.partition(".")[0]))
        unpack = ["unzip", named, "-d", folder] if name.endswith(".zip") else ["tar", "xf", named]
        line = console.command("shard", "images", made, "--from", folder)
        return f"an archive. Unpack it: {shlex.join(unpack)}; then, if it holds images: {line}"
    return "a file; a data set is a folder of shards"


def _then(line: str, made: str) -> str:
    return f"Make them: {line}; then train with {shlex.quote(f'data={made}')}"


def _roots(path: Path) -> tuple[Path, ...]:
    """Return the folders in which `distgan index` looks for tars by itself."""
    return (path, *(path / name for name in ("train", "training", "val", "valid", "validation")))


def _neighbours(path: Path) -> list[str]:
    try:
        return [one.name for one in islice(path.parent.iterdir(), MOST_LOOKED_AT) if one.is_dir()]
    except OSError:
        return []
