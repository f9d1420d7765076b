"""Tell a folder of shards from a Dataset of one's own, which is named by code. Imports no torch."""

import os
import re
from pathlib import Path

from distgan.core.errors import ConfigError

NAME = re.compile(r"(.+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


PASSED = " (Dataset of a program)"  # ends the name of one that a Python program has passed


def names_code(text: str) -> bool:
    """Return whether `text` is `FILE.py:NAME` or `pkg.module:NAME`, and no folder."""
    return bool(NAME.fullmatch(text)) and not os.path.exists(os.path.expanduser(text))


def folder_of_shards(text: str) -> Path:
    """Return the path that `text` names; ConfigError for a Dataset, which has no shards."""
    if names_code(text):
        raise ConfigError(
            f"{text} names a Dataset, and shards are needed here: it has no files to check or to"
            " index. What a Dataset must be is checked whenever it is opened"
        )
    return Path(text)
