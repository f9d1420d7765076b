"""Infer the format of a sample from the field names and headers of all members."""

import functools
import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile

from distgan.core import console
from distgan.core.errors import ConfigError, DataError
from distgan.shards.codecs import array, image_files
from distgan.shards.codecs.audio import WAVE_FIELDS, read_layout
from distgan.shards.codecs.image_files import FIELDS as IMAGE_FIELDS
from distgan.shards.format.reader import ShardSet
from distgan.shards.format.sample_spec import LARGEST, MOST_VALUES, VECTOR_FIELDS, size_entry

ANY_SOUND = (
    "other kinds of sound files, rates and numbers of channels are for `distgan shard audio`, which"
    " converts them: unpack the tars into a folder for each side, then distgan shard audio OUT"
    " --input FOLDER --target FOLDER"
)
MAX_EXAMPLES = 5  # in a message


def infer(
    parts: dict[str, ShardSet],
    image: str | None,
    pair: tuple[str, str] | None,
    vector: str | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Return ("sample" of dataset.json, notes: reasons why the samples cannot be trained on, and
    what their files state that is not applied).

    `image`, `pair` (input, target) and `vector` name the fields; otherwise png, jpg, jpeg or npy is
    an image, but npy of float32 a vector, and input.wav and target.wav (or .flac, or of images
    .png …) a pair. ConfigError for a field that does not exist or is of another kind.
    """
    fields = parts["train"].fields
    _check_names(fields, [vector] if vector else [], VECTOR_FIELDS, "--vector")
    if vector:
        return _vector(parts, vector)
    _check_names(fields, [image] if image else [], IMAGE_FIELDS, "--image")
    images = [field for field in fields if field in IMAGE_FIELDS]
    if pair is None and image is None:
        pair = _usual_pair(fields, WAVE_FIELDS)
        image = images[0] if len(images) == 1 else None
        pair = pair or (None if image else _usual_pair(fields, IMAGE_FIELDS))
        if image in VECTOR_FIELDS and pair is None and _is_vector(parts["train"], image):
            return _vector(parts, image)
    if pair:
        of_images = any(_extension(field) in IMAGE_FIELDS for field in pair)
        kinds = IMAGE_FIELDS if of_images else WAVE_FIELDS
        _check_names(fields, list(pair), kinds, "--input and --target")
        return _image(parts, *pair) if of_images else _pair(parts, pair)
    if image:
        return _image(parts, image)
    remedy = (
        f"{' and '.join(images)} are images: choose one with --image"
        if images
        else "name an image with --image, a pair with --input and --target, a vector with --vector"
    )
    return {"kind": "unknown", "fields": fields}, [
        f"the fields of a sample ({', '.join(fields)}) do not determine whether it is an image, a"
        f" pair or a vector, so nothing can be trained on it yet; {remedy}"
    ]


def _usual_pair(fields: list[str], kinds: tuple[str, ...]) -> tuple[str, str] | None:
    """Return input.KIND and target.KIND of the first kind of which there are both."""
    pairs = [(f"input.{kind}", f"target.{kind}") for kind in kinds]
    return next((names for names in pairs if {*names} <= {*fields}), None)


def _check_names(fields: list[str], chosen: list[str], kinds: tuple[str, ...], option: str) -> None:
    for field in chosen:
        if field not in fields:
            raise ConfigError(f"{option}: no field {field!r}; there are: {', '.join(fields)}")
        if _extension(field) not in kinds:
            raise ConfigError(
                f"{option}: {field!r} is of an unsupported kind; allowed are {', '.join(kinds)}"
            )
    if len(set(chosen)) != len(chosen):
        raise ConfigError(f"{option} name the same field {chosen[0]!r}")


def _image(parts: dict[str, ShardSet], *fields: str) -> tuple[dict[str, Any], list[str]]:
    """One field, or the input and target of pairs, which must have one size."""

    def inspect(shard_set: ShardSet, i: int) -> tuple[int, int, int, str]:
        sample = shard_set.fields_of(i, fields)
        headers = [_image_header(sample[field], _extension(field)) for field in fields]
        (width, height, *_), (other_width, other_height, *_) = headers[0], headers[-1]
        if (width, height) != (other_width, other_height):
            raise ValueError(
                f"{fields[0]} has {width}x{height} pixels, {fields[1]} {other_width}x{other_height}"
            )
        spaces = [space for *_, space in headers if space]
        return width, height, max(channels for _, _, channels, _ in headers), "".join(spaces[:1])

    headers, errors = _inspect_all(parts, inspect, "images")
    if not headers:
        return {"kind": "unknown", "fields": parts["train"].fields}, [
            _summary("images cannot be read", errors)
        ]
    counts = Counter((width, height) for width, height, *_ in headers)
    (width, height), _ = counts.most_common(1)[0]
    one_size = len(counts) == 1 and max(width, height) <= LARGEST and not errors
    sample: dict[str, Any] = {
        "kind": "image" if len(fields) == 1 else "image_pair",
        "channels": max(channels for _, _, channels, _ in headers),
        "size": size_entry(height, width) if one_size else None,
    }
    sample |= {"field": fields[0]} if len(fields) == 1 else {"fields": list(fields)}
    if not all(_extension(field) == "npy" for field in fields):
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
    spaces = Counter(space for *_, space in headers if space)
    return sample, [
        f"{count} of {len(headers)} images state {space}, another colour space than sRGB; their"
        " values are used as they are"
        for space, count in spaces.most_common(MAX_EXAMPLES)
    ]


def _pair(parts: dict[str, ShardSet], fields: tuple[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Both members of a pair must have one length, all pairs one rate and type of values."""

    def inspect(shard_set: ShardSet, i: int) -> tuple[int, int, str]:
        first, second = (_sound_header(shard_set, i, field) for field in fields)
        if first != second:
            raise ValueError(f"{fields[0]} has {_sound(first)}, {fields[1]} has {_sound(second)}")
        return first

    headers, errors = _inspect_all(parts, inspect, "pairs")
    counts = Counter((rate, dtype) for _, rate, dtype in headers)
    unknown = {"kind": "unknown", "fields": parts["train"].fields}
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


def _is_vector(shard_set: ShardSet, field: str) -> bool:
    """Return whether the first sample is a vector of floats: an image has rows and columns."""
    try:
        shape, dtype = array.header(shard_set.fields_of(0, (field,))[field])
    except Exception:  # NumPy raises any kind for a damaged header
        return False
    return len(shape) == 1 and dtype.kind == "f"


def _vector(parts: dict[str, ShardSet], field: str) -> tuple[dict[str, Any], list[str]]:
    """All vectors must have one length."""

    def inspect(shard_set: ShardSet, i: int) -> tuple[int]:
        shape, dtype = array.header(data := shard_set.fields_of(i, (field,))[field])
        if dtype != np.float32 or len(shape) != 1 or not 1 <= shape[0] <= MOST_VALUES:
            raise ValueError(f"an array of {dtype} {list(shape)}; a vector is float32 [numbers]")
        array.vector(data, shape[0])
        return shape

    shapes, errors = _inspect_all(parts, inspect, "vectors")
    sizes = Counter(size for (size,) in shapes)
    unknown = {"kind": "unknown", "fields": parts["train"].fields}
    if errors:
        return unknown, [_summary("vectors cannot be read", errors)]
    if len(sizes) > 1:
        found = [f"{count} of {size} numbers" for size, count in sizes.most_common(MAX_EXAMPLES)]
        return unknown, [f"training needs vectors of one length; found {', '.join(found)}"]
    return {"kind": "vector", "size": next(iter(sizes)), "field": field}, []


def _inspect_all(
    parts: dict[str, ShardSet], inspect: Callable[[ShardSet, int], tuple], unit: str
) -> tuple[list[tuple], list[str]]:
    """Return (headers of the readable samples, "key: reason" of the others).

    DataError for damaged shards.
    """
    headers, errors = [], []
    with console.bar(f"examining {unit}", sum(map(len, parts.values())), unit) as bar:
        for shard_set in parts.values():
            for i in range(len(shard_set)):
                try:
                    headers.append(inspect(shard_set, i))
                except DataError:
                    raise
                except Exception as error:  # decoders raise anything on damaged headers
                    errors.append(f"{shard_set.folder.name}/{shard_set.key(i)}: {error}")
                bar.advance()
    return headers, errors


def _image_header(data: bytes, kind: str) -> tuple[int, int, int, str]:
    """Return (width, height, channels 1 or 3, colour space) as `image_files.decode` reads it;
    ValueError if it is no image, or its pixels have no stated meaning.
    """
    if kind == "npy":
        shape, dtype = array.header(data)
        if dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (1,), (3,)):
            raise ValueError(
                f"an array of {dtype} {list(shape)}; an image is uint8 [height, width] or [height,"
                " width, 3]"
            )
        return shape[1], shape[0], 3 if shape[2:] == (3,) else 1, ""
    header = image_files.header(io.BytesIO(data))
    return header.width, header.height, 1 if header.is_gray else 3, header.space


def _sound_header(shard_set: ShardSet, i: int, field: str) -> tuple[int, int, str]:
    """Return (frames, rate in Hz, "int16" or "float32") of one mono sound."""
    if _extension(field) == "wav":
        size = shard_set.size(i, field)
        layout = read_layout(functools.partial(shard_set.read_range, i, field), size)
        channels, frames, rate, dtype = (
            layout.channels,
            layout.frames,
            layout.rate,
            layout.dtype.name,
        )
    else:
        info = soundfile.info(io.BytesIO(shard_set.fields_of(i, (field,))[field]))
        if (info.format, info.subtype) != ("FLAC", "PCM_16"):
            raise ValueError(
                f"{field} is {info.format} {info.subtype}; allowed is FLAC with 16 bits"
            )
        channels, frames, rate, dtype = info.channels, info.frames, info.samplerate, "int16"
    if channels != 1 or not frames:
        raise ValueError(
            f"{field} has {channels} channels and {frames} frames; allowed is one channel"
        )
    return frames, rate, dtype


def _extension(field: str) -> str:
    return field.rpartition(".")[2]


def _sound(header: tuple[int, int, str]) -> str:
    return f"{header[0]} frames of {header[2]} at {header[1]} Hz"


def _summary(problem: str, errors: list[str]) -> str:
    lines = [f"{len(errors)} {problem}, so nothing can be trained on them:"]
    lines += [f"  {error}" for error in errors[:MAX_EXAMPLES]]
    if len(errors) > MAX_EXAMPLES:
        lines.append(f"  … and {len(errors) - MAX_EXAMPLES} more")
    return "\n".join(lines)
