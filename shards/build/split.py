"""Which samples are for training and which for validation: a pure function of their names."""

import hashlib

from distgan.core.errors import ConfigError


def rank(name: str) -> bytes:
    """A place in an order that has nothing to do with the names.

    The same on every machine, and for any order of the input.
    """
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def split(keys: list[str], groups: list[str], share: float) -> dict[str, list[int]]:
    """{"train": samples, "validation": samples}: numbers into `keys`, each in the order in which
    they are written.

    `share` in (0, 0.5] goes to validation: round(share * n) samples and at least 1, exactly if
    every sample is its own group. Otherwise whole groups are taken as long as they fit, so the
    share can be a little less; if none fits, the smallest is taken. ConfigError if all samples are
    of one group.

    Samples are written in the order of the hash of their key: a reader that only shuffles within a
    buffer then still mixes the classes of a source that comes sorted by class.
    """
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    if len(sizes) < 2:
        what = f"all {len(keys)} samples are of one group" if keys else "there are no samples"
        raise ConfigError(
            f"{what}; training and validation need at least one group (recording, distinct image)"
            " each"
        )
    wanted = max(1, int(share * len(keys) + 0.5))
    by_rank = sorted(sizes, key=rank)
    chosen: set[str] = set()
    taken = 0
    for group in by_rank:
        if taken + sizes[group] <= wanted:
            chosen.add(group)
            taken += sizes[group]
    if not chosen:
        chosen.add(min(by_rank, key=sizes.__getitem__))
    order = sorted(range(len(keys)), key=lambda i: rank(keys[i]))
    return {
        "train": [i for i in order if groups[i] not in chosen],
        "validation": [i for i in order if groups[i] in chosen],
    }
