"""Every random number has an address: (seed, purpose, index). The same address gives the same
number on any rank, device or restart, so no generator has state to save. Imports no torch at the
top: the shard builders use it too.
"""

import hashlib
from typing import Any

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def key(seed: int, purpose: str, *index: int) -> int:
    """Return the 63-bit number of an address in the run: `key(0, "noise/g", step)`."""
    text = "/".join([str(int(seed)), purpose, *(str(int(i)) for i in index)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """Return a NumPy generator that starts at this address."""
    return np.random.Generator(np.random.Philox(key=key(seed, purpose, *index)))


def normal(seed: int, purpose: str, index: int, shape: tuple[int, ...]) -> Any:
    """Return a standard normal float32 tensor of `shape` on the CPU, a function of its address.

    Draw the whole global batch, then cut by rank.
    """
    import torch

    return torch.randn(
        shape,
        dtype=torch.float32,
        generator=torch.Generator().manual_seed(key(seed, purpose, index)),
    )


def normal_each(seed: int, purpose: str, index: np.ndarray, shape: tuple[int, ...]) -> Any:
    """Return a standard normal float32 tensor [n, *shape] on the CPU: one draw of `shape` for each
    element of the integer array `index` [n].
    """
    import torch

    return torch.cat([normal(seed, purpose, int(i), (1, *shape)) for i in index])


def uniform(seed: int, purpose: str, index: np.ndarray, salt: int = 0) -> np.ndarray:
    """Return one number in [0, 1) for each element of the integer array `index`, each from its own
    address.

    SplitMix64's output function (Steele, Lea, Flood 2014) on (address key + index * golden ratio):
    a counter-based generator, so a rank that holds only some of the indices draws the same numbers
    for them as a process that holds all.
    """
    x = np.asarray(index, dtype=np.uint64) * _GOLDEN + np.uint64(key(seed, purpose, salt))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53
