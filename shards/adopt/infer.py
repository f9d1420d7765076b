"""Infer the format of a sample from the field names and headers of all members."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distgan.core.errors import ConfigError
from distgan.shards.adopt.scan import ARRAY, BROKEN, Header
from distgan.shards.codecs import image_files
from distgan.shards.codecs.audio import WAVE_FIELDS
from distgan.shards.codecs.image_files import FIELDS as IMAGE_FIELDS
from distgan.shards.format.sample_spec import LARGEST, MOST_VALUES, VECTOR_FIELDS, size_entry

ANY_SOUND = (
    "other kinds of sound files, rates and numbers of channels are for `distgan shard audio`, which"
    " converts them: unpack the tars into a folder for each side, then distgan shard audio OUT"
    " --input FOLDER --target FOLDER"
)
MAX_EXAMPLES = 5  # in a message


@dataclass(frozen=True)
class Combination:
    """Samples that have the same fields with the same headers (`scan.describe`)."""

    part: str
    fields: dict[str, Header]
    count: int
    keys: list[str]  # of all if a member is broken, else of the first

    def broken(self, fields: Sequence[str]) -> str:
        """Return why a member among these fields cannot be read, or ""."""
        reasons = (self.fields[field][1] for field in fields if self.fields[field][0] == BROKEN)
        return next(reasons, "")


@dataclass(frozen=True)
class Role:
    """The fields that a sample is made of: one image or vector, or the two of a pair."""

    kind: str  # one of UNITS, or "unknown"
    fields: tuple[str, ...] = ()
    why: str = ""  # unknown


def role_of(
    fields: list[str],
    combinations: Sequence[Combination],
    image: str | None,
    pair: tuple[str, str] | None,
    vector: str | None = None,
) -> Role:
    """Return which fields make a sample.

    `image`, `pair` (input, target) and `vector` name the fields; otherwise png, jpg … or npy is an
    image, but npy of float32 a vector, and input.wav and target.wav (or .flac, or of images
    .png …) a pair. ConfigError for a field that does not exist or is of another kind.
    """
    _check_names(fields, [vector] if vector else [], VECTOR_FIELDS, "--vector")
    if vector:
        return Role("vector", (vector,))
    _check_names(fields, [image] if image else [], IMAGE_FIELDS, "--image")
    images = [field for field in fields if _is_of(field, IMAGE_FIELDS) and "." not in field]
    if pair is None and image is None:
        pair = _usual_pair(fields, WAVE_FIELDS)
        image = images[0] if len(images) == 1 else None
        pair = pair or (None if image else _usual_pair(fields, IMAGE_FIELDS))
        if image in VECTOR_FIELDS and pair is None and _is_vector(combinations, image):
            return Role("vector", (image,))
    if pair:
        of_images = any(_is_of(field, IMAGE_FIELDS) for field in pair)
        kinds = IMAGE_FIELDS if of_images else WAVE_FIELDS
        _check_names(fields, list(pair), kinds, "--input and --target")
        return Role("image_pair" if of_images else "pair", pair)
    if image:
        return Role("image", (image,))
    remedy = (
        f"{' and '.join(images)} are images: choose one with --image"
        if images
        else "name an image with --image, a pair with --input and --target, a vector with --vector"
    )
    return Role(
        "unknown",
        why=f"the fields of a sample ({', '.join(fields)}) do not determine whether it is an image,"
        f" a pair or a vector, so nothing can be trained on it yet; {remedy}",
    )


def infer(
    role: Role, fields: list[str], combinations: Sequence[Combination]
) -> tuple[dict[str, Any], list[str]]:
    """Return ("sample" of dataset.json, notes: reasons why the samples cannot be trained on, and
    what their files state that is not applied).
    """
    if role.kind == "unknown":
        return {"kind": "unknown", "fields": fields}, [role.why]
    unknown = {"kind": "unknown", "fields": fields}
    make = {"vector": _vector, "pair": _pair}.get(role.kind, _image)
    return make(role.fields, combinations, unknown)


def _usual_pair(fields: list[str], kinds: tuple[str, ...]) -> tuple[str, str] | None:
    """Return input.KIND and target.KIND of the first kind of which there are both."""
    sides = [
        [f for f in fields if f.startswith(f"{side}.") and _is_of(f, kinds)]
        for side in ("input", "target")
    ]
    pairs = [(f"input.{kind}", f"target.{kind}") for kind in kinds]
    if usual := next((names for names in pairs if {*names} <= {*fields}), None):
        return usual
    return (sides[0][0], sides[1][0]) if len(sides[0]) == len(sides[1]) == 1 else None


def _check_names(fields: list[str], chosen: list[str], kinds: tuple[str, ...], option: str) -> None:
    for field in chosen:
        if field not in fields:
            raise ConfigError(f"{option}: no field {field!r}; there are: {', '.join(fields)}")
        if not _is_of(field, kinds):
            raise ConfigError(
                f"{option}: {field!r} is of an unsupported kind; allowed are {', '.join(kinds)}"
            )
    if len(set(chosen)) != len(chosen):
        raise ConfigError(f"{option} name the same field {chosen[0]!r}")


def _image(
    fields: tuple[str, ...], combinations: Sequence[Combination], unknown: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """One field, or the input and target of pairs, which must have one size."""

    def inspect(*headers: Header) -> tuple[int, int, int, str]:
        images = [_image_header(header) for header in headers]
        (width, height, *_), (other_width, other_height, *_) = images[0], images[-1]
        if (width, height) != (other_width, other_height):
            raise ValueError(
                f"{fields[0]} has {width}x{height} pixels, {fields[1]} {other_width}x{other_height}"
            )
        spaces = [space for *_, space in images if space]
        return width, height, max(channels for _, _, channels, _ in images), "".join(spaces[:1])

    headers, errors = _inspect_all(fields, combinations, inspect)
    if not headers:
        return unknown, [_summary("images cannot be read", errors)]
    counts = _count(headers, lambda header: header[:2])
    (width, height), _ = counts.most_common(1)[0]
    one_size = len(counts) == 1 and max(width, height) <= LARGEST and not errors
    sample: dict[str, Any] = {
        "kind": "image" if len(fields) == 1 else "image_pair",
        "channels": max(channels for _, _, channels, _ in headers),
        "size": size_entry(height, width) if one_size else None,
    }
    sample |= {"field": fields[0]} if len(fields) == 1 else {"fields": list(fields)}
    if not all(_is_of(field, VECTOR_FIELDS) for field in fields):
        sample["decoding"] = image_files.DECODING
    if errors:
        return sample, [_summary("images cannot be read", errors)]
    if not one_size:
        sizes = [
            f"{count} of {width}x{height}"
            for (width, height), count in counts.most_common(MAX_EXAMPLES)
        ]
        if len(counts) > MAX_EXAMPLES:
            sizes.append("…")
        return sample, [
            f"training needs images of one size, at most {LARGEST:,} pixels a side; found"
            f" {', '.join(sizes)}"
        ]
    spaces = _count(headers, lambda header: header[3])
    return sample, [
        f"{count} of {spaces.total()} images state {space}, another colour space than sRGB; their"
        " values are used as they are"
        for space, count in spaces.most_common(MAX_EXAMPLES)
        if space
    ]


def _pair(
    fields: tuple[str, ...], combinations: Sequence[Combination], unknown: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Both members of a pair must have one length, all pairs one rate and type of values."""

    def inspect(first: Header, second: Header) -> tuple[int, int, str]:
        if first != second:
            raise ValueError(f"{fields[0]} has {_sound(first)}, {fields[1]} has {_sound(second)}")
        return first[1], first[2], first[3]

    headers, errors = _inspect_all(fields, combinations, inspect)
    counts = _count(headers, lambda header: header[1:])
    if errors:
        return unknown, [_summary("pairs cannot be read", errors), ANY_SOUND]
    if len(counts) > 1:
        return unknown, [
            ANY_SOUND,
            "training needs one rate and one type of values; found "
            + ", ".join(
                f"{count} pairs of {dtype} at {rate} Hz"
                for (rate, dtype), count in counts.most_common(MAX_EXAMPLES)
            ),
        ]
    ((rate, dtype),) = counts
    frames = [frames for frames, _, _ in headers]
    return {
        "kind": "pair",
        "rate": rate,
        "fields": list(fields),
        "dtype": dtype,
        "length": min(frames),
        "longest": max(frames),
    }, []


def _is_vector(combinations: Sequence[Combination], field: str) -> bool:
    """Return whether the first sample is a vector of floats: an image has rows and columns."""
    headers = (one.fields[field] for one in combinations if field in one.fields)
    kind, *rest = next(headers, [BROKEN])
    return kind == ARRAY and len(rest[1]) == 1 and np.dtype(rest[0]).kind == "f"


def _vector(
    fields: tuple[str, ...], combinations: Sequence[Combination], unknown: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """All vectors must have one length."""

    def inspect(header: Header) -> tuple[int]:
        _, dtype, shape, problem = header
        if dtype != "float32" or len(shape) != 1 or not 1 <= shape[0] <= MOST_VALUES:
            raise ValueError(f"an array of {dtype} {shape}; a vector is float32 [numbers]")
        if problem:
            raise ValueError(problem)
        return (shape[0],)

    headers, errors = _inspect_all(fields, combinations, inspect)
    sizes = _count(headers, lambda header: header[0])
    if errors:
        return unknown, [_summary("vectors cannot be read", errors)]
    if len(sizes) > 1:
        found = [f"{count} of {size} numbers" for size, count in sizes.most_common(MAX_EXAMPLES)]
        return unknown, [f"training needs vectors of one length; found {', '.join(found)}"]
    return {"kind": "vector", "size": next(iter(sizes)), "field": fields[0]}, []


def _inspect_all(
    fields: tuple[str, ...],
    combinations: Sequence[Combination],
    inspect: Callable[..., tuple],
) -> tuple[dict[tuple, int], list[str]]:
    """Return (how many readable samples have each header, "key: reason" of the others)."""
    headers: dict[tuple, int] = {}
    errors: list[str] = []
    for one in combinations:
        try:
            if reason := one.broken(fields):
                raise ValueError(reason)
            header = inspect(*(one.fields[field] for field in fields))
            headers[header] = headers.get(header, 0) + one.count
        except ValueError as error:
            keys = one.keys if len(one.keys) == one.count else one.keys * one.count
            errors += [f"{one.part}/{key}: {error}" for key in keys]
    return headers, errors


def _count(headers: dict[tuple, int], part: Callable[[tuple], Any]) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for header, count in headers.items():
        counts[part(header)] += count
    return counts


def _image_header(header: Header) -> tuple[int, int, int, str]:
    """Return (width, height, channels 1 or 3, colour space); ValueError if it is no image."""
    if header[0] == ARRAY:
        dtype, shape = header[1], tuple(header[2])
        if dtype != "uint8" or len(shape) not in (2, 3) or shape[2:] not in ((), (1,), (3,)):
            raise ValueError(
                f"an array of {dtype} {list(shape)}; an image is uint8 [height, width] or [height,"
                " width, 3]"
            )
        return shape[1], shape[0], 3 if shape[2:] == (3,) else 1, ""
    return header[1], header[2], header[3], header[4]


def _is_of(field: str, kinds: tuple[str, ...]) -> bool:
    """Return whether a field, or each of its alternatives, is of one of the kinds."""
    return all(one.rpartition(".")[2] in kinds for one in field.split("|"))


def _sound(header: Header) -> str:
    return f"{header[1]} frames of {header[3]} at {header[2]} Hz"


def _summary(problem: str, errors: list[str]) -> str:
    lines = [f"{len(errors)} {problem}, so nothing can be trained on them:"]
    lines += [f"  {error}" for error in errors[:MAX_EXAMPLES]]
    if len(errors) > MAX_EXAMPLES:
        lines.append(f"  … and {len(errors) - MAX_EXAMPLES} more")
    lines.append("  --skip-broken leaves out those that are damaged")
    return "\n".join(lines)
