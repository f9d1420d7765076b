"""A good data set and a run that was begun on it, and ways to damage and compare them."""

import json
from pathlib import Path


def listing(folder: Path) -> dict[str, tuple]:
    """Everything below a folder, with sizes and times of change."""
    return {
        str(path.relative_to(folder)): (
            path.is_dir(),
            path.lstat().st_size,
            path.lstat().st_mtime_ns,
        )
        for path in folder.rglob("*")
    }


def only_one(text: str) -> None:
    assert text.startswith("error: ") and text.count("error:") == 1, text
    assert "Traceback" not in text and 20 < len(text) < 1500


def damage(data: Path) -> str:
    """Four bytes of one training image, the size unchanged; its name."""
    index = json.loads((data / "train" / "train-000000.json").read_text())
    name = [name for name in index["files"] if name.endswith(".png")][20]
    with open(data / "train" / "train-000000.tar", "r+b") as file:
        file.seek(index["files"][name]["offset"] + 20)
        file.write(b"xxxx")
    return name


def begun():
    """What a start of the run in the folder `begun` gives to RunFolder."""
    from distgan.data.dataset import Data
    from distgan.recipes.sagan import Settings

    return (
        Settings(data="data", machine={"folder": "begun"}),
        Data("data").fingerprint,
        {"data": "data"},
    )
