"""Validate the entry `sample` of dataset.json: no checksum covers it, and readers rely on it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distgan.config import image_sizes
from distgan.core import console
from distgan.shards.codecs.audio import WAVE_FIELDS
from distgan.shards.codecs.fitting import height_width
from distgan.shards.codecs.image_files import DECODING, FIELDS
from distgan.shards.format.manifest import VERSION

# The kinds of samples, and words for several of them.
UNITS = {"image": "images", "pair": "pairs", "image_pair": "image pairs", "vector": "vectors"}
LARGEST = 1 << 14  # pixels on a side: a false size must not fill the memory
MOST_VALUES = 1 << 20  # of a vector
VECTOR_FIELDS = ("npy",)


def sample_of(dataset: Any) -> dict[str, Any]:
    """Return the validated entry `sample` of dataset.json (see distgan.shards.sources).

    Its kind is `unknown` if `distgan index` could not determine it. ValueError names the error.
    """
    if not isinstance(dataset, dict) or type(dataset.get("sample")) is not dict:
        raise ValueError("it has no description of a sample")
    if dataset.get("version") != VERSION:
        raise ValueError(
            f"version {dataset.get('version')!r}; this program reads version {VERSION}"
        )
    sample = dataset["sample"]
    kind = sample.get("kind")
    if kind in ("image", "image_pair"):
        valid = {
            "channels": sample.get("channels") in (1, 3),
            "size": "size" in sample and _is_size(sample["size"]),
            "decoding": type(decoding := sample.get("decoding", 1)) is int
            and 1 <= decoding <= DECODING,
        }
        if kind == "image":
            valid["field"] = _is_field(sample.get("field", "png"), FIELDS)
        else:
            valid["fields"] = _are_two_fields(sample.get("fields"), FIELDS)
    elif kind == "pair":
        length, longest = sample.get("length"), sample.get("longest")
        valid = {
            "rate": _is_count(sample.get("rate")),
            "dtype": sample.get("dtype") in ("int16", "float32"),
            "length": _is_count(length) and _is_count(longest) and length <= longest,
            "fields": _are_two_fields(sample.get("fields"), WAVE_FIELDS),
        }
    elif kind == "vector":
        valid = {
            "size": _is_count(sample.get("size"), MOST_VALUES),
            "field": _is_field(sample.get("field"), VECTOR_FIELDS),
            "columns": "columns" not in sample or _are_names(sample["columns"], sample.get("size")),
        }
    else:
        valid = {"kind": kind == "unknown"}
    if wrong := [name for name, is_valid in valid.items() if not is_valid]:
        raise ValueError(f"sample: {wrong[0]} {sample.get(wrong[0])!r}")
    return sample


def read_size(text: str, least: int, most: int) -> int | list[int]:
    """Parse `64` or `128x64`, WIDTHxHEIGHT, as the `size` of images; ValueError."""
    if not (match := re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text, re.ASCII)):
        raise ValueError
    width, height = int(match[1]), int(match[2] or match[1])
    if not all(least <= side <= most for side in (width, height)):
        raise ValueError
    return size_entry(height, width)


def size_entry(height: int, width: int) -> int | list[int]:
    """Return the `size` of images as dataset.json has it."""
    return height if height == width else [height, width]


def recipe_for(sample: dict[str, Any], usual: str | None) -> str | None:
    """Return `usual`, the recipe to name as the next command; None where it would refuse images of
    this size.
    """
    if sample.get("kind") != "image":
        return usual
    size = sample.get("size")
    return usual if size and image_sizes.trainable(*height_width(size)) else None


def next_lines(
    data: object, sample: dict[str, Any], usual: str | None, labels: Sequence[str] = ()
) -> list[str]:
    """Return the commands to name after a data set was made; `labels` are its columns."""
    lines = [console.command("check", data)]
    if (kind := sample.get("kind")) in ("image_pair", "vector"):  # of recipes of one's own
        train = console.command("train", "my_gan.py", f"data={data}")
        given = ["--conditional"] if labels and kind == "vector" else []
        new = console.command("new", "my_gan.py", "--kind", kind, *given)
        lines.append(f"{new}  # then: {train}")
    if recipe := recipe_for(sample, usual):
        run = ("run", "--processes", 2, recipe, f"data={data}")
        lines.append(console.command(*run))
        if sample.get("kind") == "image" and isinstance(sample["size"], int):
            lines[-1] += f"  # or my_gan.py of your own in place of {recipe}"
            if not Path("my_gan.py").exists():
                given = ["--conditional"] if labels else []
                lines[-1] += f": {console.command('new', 'my_gan.py', *given)}"
        if labels and sample.get("kind") == "image":
            column = [f"label={labels[0]}"] if len(labels) > 1 else []
            lines.append(console.command(*run, "conditional=true", *column))
    elif usual and sample.get("kind") == "image":
        lines[0] += f"  # no recipe of distgan trains on images of this size: {image_sizes.RULE}"
    return lines


def _is_size(value: Any) -> bool:
    """Several sizes (None), a side of squares, or [height, width] of rectangles."""
    if isinstance(value, list):
        is_pair = len(value) == 2 and all(_is_count(side, LARGEST) for side in value)
        return is_pair and value[0] != value[1]
    return value is None or _is_count(value, LARGEST)


def _is_count(value: Any, most: int = 2**31 - 1) -> bool:
    return type(value) is int and 0 < value <= most


def _are_two_fields(value: Any, kinds: tuple[str, ...]) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(_is_field(field, kinds) for field in value)
        and value[0] != value[1]
    )


def _are_names(value: Any, count: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(name, str) and name.isprintable() and name for name in value)
        and len(set(value)) == count
    )


def _is_field(value: Any, kinds: tuple[str, ...]) -> bool:
    """One field, or several with | between them, of which each sample has one."""
    return isinstance(value, str) and all(
        one.rpartition(".")[2] in kinds for one in value.split("|")
    )
