"""Split samples into training and validation: a pure function of their names.

Tars of other programs are divided whole, by adopt/command.py.
"""

import hashlib

from distgan.core.errors import ConfigError


def rank(name: str) -> bytes:
    """Return a sort key that does not follow the order of the names, equal on every machine."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def split(keys: list[str], groups: list[str], share: float) -> dict[str, list[int]]:
    """Return {"train": …, "validation": …}: indices into `keys`, in the order of writing.

    `share` in (0, 0.5] goes to validation: round(share * n) samples and at least 1, exactly if
    every sample is its own group. Otherwise whole groups are taken as long as they fit, so the
    share can be a little less; if none fits, the smallest is taken. ConfigError if all samples are
    of one group.

    Samples are written in the order of the hash of their key: a reader that shuffles only within a
    buffer then still mixes the classes of a source that is sorted by class.
    """
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    if len(sizes) < 2:
        reason = f"all {len(keys)} samples are of one group" if keys else "there are no samples"
        raise ConfigError(
            f"{reason}; training and validation need at least one group (recording, distinct image)"
            " each"
        )
    target = max(1, int(share * len(keys) + 0.5))
    by_rank = sorted(sizes, key=rank)
    chosen: set[str] = set()
    taken = 0
    for group in by_rank:
        if taken + sizes[group] <= target:
            chosen.add(group)
            taken += sizes[group]
    if not chosen:
        chosen.add(min(by_rank, key=sizes.__getitem__))
    order = sorted(range(len(keys)), key=lambda i: rank(keys[i]))
    return {
        "train": [i for i in order if groups[i] not in chosen],
        "validation": [i for i in order if groups[i] in chosen],
    }
