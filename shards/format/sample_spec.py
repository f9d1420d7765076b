"""Validate the entry `sample` of dataset.json: no checksum covers it, and readers rely on it."""

from typing import Any

from distgan.shards.codecs.audio import WAVE_FIELDS
from distgan.shards.codecs.image import IMAGE_FIELDS
from distgan.shards.format.manifest import VERSION

LARGEST = 1 << 14  # pixels on a side: a false size must not fill the memory


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
    if kind == "image":
        valid = {
            "channels": sample.get("channels") in (1, 3),
            "size": "size" in sample
            and (sample["size"] is None or _is_count(sample["size"], LARGEST)),
            "field": _is_field(sample.get("field", "png"), IMAGE_FIELDS),
        }
    elif kind == "pair":
        fields, length, longest = sample.get("fields"), sample.get("length"), sample.get("longest")
        valid = {
            "rate": _is_count(sample.get("rate")),
            "dtype": sample.get("dtype") in ("int16", "float32"),
            "length": _is_count(length) and _is_count(longest) and length <= longest,
            "fields": (
                isinstance(fields, list)
                and len(fields) == 2
                and all(_is_field(field, WAVE_FIELDS) for field in fields)
                and fields[0] != fields[1]
            ),
        }
    else:
        valid = {"kind": kind == "unknown"}
    if wrong := [name for name, is_valid in valid.items() if not is_valid]:
        raise ValueError(f"sample: {wrong[0]} {sample.get(wrong[0])!r}")
    return sample


def _is_count(value: Any, most: int = 2**31 - 1) -> bool:
    return type(value) is int and 0 < value <= most


def _is_field(value: Any, kinds: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value.rpartition(".")[2] in kinds
