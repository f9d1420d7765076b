"""Options of `distgan sweep`, as if given on the command line."""

from typing import Any

from distgan.core.arguments import Arguments
from distgan.launchers.sweeps.command import COMMAND


def options_of(words: list[str], **more: Any) -> Arguments:
    """The parsed options for these words, with `more` set."""
    options = COMMAND.parse(words or ["sagan"])
    vars(options).update(more, words=words)
    return options
