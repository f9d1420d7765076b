"""Options of `distgan sweep`, as if given on the command line."""

import argparse
from typing import Any


def options_of(words: list[str], **more: Any) -> argparse.Namespace:
    """The parsed options for these words, with `more` set."""
    empty = dict.fromkeys(
        (
            "name",
            "profile",
            "partition",
            "account",
            "time",
            "nodes",
            "gpus",
            "processes",
            "cpus",
            "mem_gb",
            "max_parallel",
            "pack",
        )
    )
    return argparse.Namespace(**{**empty, "set": [], "words": words, **more})
