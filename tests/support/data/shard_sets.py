"""Small data sets: by `distgan shard`, or written in a moment with samples that hold their
number.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np

from distgan.shards.build.command import main
from distgan.shards.codecs import array
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.codecs import image as image_codec
from distgan.shards.format.manifest import fingerprint, write_manifest
from distgan.shards.format.writer import write_shard

ROOT = Path(__file__).parents[3]
# One small set, 120 images in 6 + 1 shards, is what several tests must end with.
SMALL = ("--n", 120, "--size", 32, "--per-shard", 18)


def shard(*words) -> int:
    return main([str(word) for word in words])


def contents(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def image(number: int, size: int | tuple[int, int] = 4, channels: int = 1) -> np.ndarray:
    """uint8 [height, width(, 3)]: the first two pixels hold the number."""
    sides = (size, size) if isinstance(size, int) else size
    pixels = np.full(sides if channels == 1 else (*sides, channels), 7, np.uint8)
    pixels[0, 0], pixels[0, 1] = number // 256, number % 256
    return pixels


def pair(number: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """int16 [frames] twice: ramps that tell the sample and the place in it; the target is the
    input's negative.
    """
    ramp = (np.arange(frames) + 100 * number).astype(np.int16)
    return ramp, -ramp


def images(
    folder: Path,
    n: int,
    per_shard: int = 10,
    *,
    held_out: int = 3,
    payload: str = "raw",
    size: int | tuple[int, int] = 4,
    channels: int = 1,
) -> Path:
    """A data set of n training images, numbers 0 … n-1, and `held_out` more to validate."""

    def sample(i):
        field, data = image_codec.encode(image(i, size, channels), payload)
        return {"__key__": f"{i:06d}", field: data, "json": b"{}"}

    about = {
        "kind": "image",
        "channels": channels,
        "size": size if isinstance(size, int) else size[0] if size[0] == size[1] else list(size),
        "field": image_codec.FIELDS[payload],
    }
    return write(folder, about, sample, n, held_out, per_shard)


def pairs(
    folder: Path,
    n: int,
    per_shard: int = 10,
    *,
    held_out: int = 3,
    frames: int | list[int] = 100,
    rate: int = 1000,
    payload: str = "wav",
) -> Path:
    """A data set of n training pairs, of equal or given lengths."""
    lengths = [frames] * (n + held_out) if isinstance(frames, int) else frames
    encode = audio_codec.write_wav if payload == "wav" else audio_codec.write_flac

    def sample(i):
        both = [encode(wave, rate) for wave in pair(i, lengths[i])]
        return {
            "__key__": f"{i:06d}",
            f"input.{payload}": both[0],
            f"target.{payload}": both[1],
            "json": b"{}",
        }

    about = {
        "kind": "pair",
        "rate": rate,
        "fields": [f"input.{payload}", f"target.{payload}"],
        "dtype": "int16",
        "length": min(lengths),
        "longest": max(lengths),
    }
    return write(folder, about, sample, n, held_out, per_shard)


def image_pairs(folder: Path, n: int, *, held_out: int = 6, size: int = 16) -> Path:
    """A data set of n training pairs of colour images: the target is the input's negative, upside
    down.
    """

    def sample(i):
        small = np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)
        given = small.repeat(size // 4, 0).repeat(size // 4, 1)
        both = (("input", given), ("target", 255 - given[::-1]))
        members = {f"{side}.npy": image_codec.encode(pixels, "raw")[1] for side, pixels in both}
        return {"__key__": f"{i:06d}", **members, "json": b"{}"}

    about = {"kind": "image_pair", "channels": 3, "size": size}
    return write(folder, about | {"fields": ["input.npy", "target.npy"]}, sample, n, held_out, 10)


def vectors(folder: Path, n: int, *, held_out: int = 3, size: int = 2) -> Path:
    """A data set of n training vectors, of which all numbers are the sample's own."""

    def sample(i):
        return {"__key__": f"{i:06d}", "npy": array.encode(np.full(size, i, np.float32))}

    about = {"kind": "vector", "size": size, "field": "npy"}
    return write(folder, about, sample, n, held_out, 10)


def write(folder: Path, about: dict, sample, n: int, held_out: int, per_shard: int) -> Path:
    prints = []
    for part, numbers in (("train", range(n)), ("validation", range(n, n + held_out))):
        (folder / part).mkdir(parents=True)
        for k, start in enumerate(range(0, len(numbers), per_shard)):
            write_shard(
                folder / part / f"{part}-{k:06d}.tar",
                [sample(i) for i in numbers[start : start + per_shard]],
            )
        prints.append(write_manifest(folder / part, part)["fingerprint"])
    dataset = {
        "version": 1,
        "source": "tests",
        "options": {},
        "origin": {},
        "sample": about,
        "samples": {"train": n, "validation": held_out},
        "left_out": [],
        "low_quality_kept": [],
        "notes": [],
        "complete": True,
        "fingerprint": fingerprint(prints),
    }
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


def damaged(
    folder: Path, n: int, *, held_out: int = 5, frames: int | list[int] = 400, rate: int = 8000
) -> Path:
    """Pairs that can be repaired.

    The target is noise of changing loudness, the input is it with more noise and too soft.
    """
    lengths = [frames] * (n + held_out) if isinstance(frames, int) else frames

    def sample(i):
        rng = np.random.default_rng(i)
        target = (
            rng.uniform(0.03, 0.1)
            * rng.standard_normal(lengths[i])
            * np.sin(np.arange(lengths[i]) / rng.uniform(20, 60)) ** 2
        )
        given = 0.6 * target + 0.02 * rng.standard_normal(lengths[i])
        both = {
            f"{side}.wav": audio_codec.write_wav(audio_codec.to_int16(wave), rate)
            for side, wave in (("input", given), ("target", target))
        }
        return {"__key__": f"{i:06d}", **both, "json": b"{}"}

    about = {
        "kind": "pair",
        "rate": rate,
        "fields": ["input.wav", "target.wav"],
        "dtype": "int16",
        "length": min(lengths),
        "longest": max(lengths),
    }
    return write(folder, about, sample, n, held_out, 10)


def copy_data(data: Path, to: Path) -> Path:
    """A data set without statistics beside it."""
    return shutil.copytree(data, to, ignore=shutil.ignore_patterns("statistics"))
