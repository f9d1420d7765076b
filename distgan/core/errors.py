"""The tree of errors that a user can cause or meet, and near misses of a name.

DistganError            the command line prints it as one message, without a traceback, and exits
                        with code 2
├── ConfigError         the user wrote something wrong (also a ValueError); all faults of a
                        configuration in one message
├── DataError           shards or source files are missing, damaged or not what was asked for (also
                        a RuntimeError)
├── RunError            a run folder, checkpoint or weights file does not fit what was asked (also a
                        RuntimeError)
│   ├── DiskError       a file cannot be written: no room, no access, the disk is gone
│   └── OutOfMemory     of a GPU or of the host, on one rank
└── LaunchError         the processes of a run do not fit together (also a RuntimeError)
"""

import difflib
import traceback
from collections.abc import Collection, Iterable


class DistganError(Exception):
    """Base of all errors that carry a message for the user."""

    everywhere = False  # True: all processes of the run raise it together, so rank 0 alone tells it


class ConfigError(DistganError, ValueError):
    """Names the key, what was found and what is allowed."""


class DataError(DistganError, RuntimeError):
    """Names the file, the sample and the bytes."""


class RunError(DistganError, RuntimeError):
    """Names the run folder or file and the next command."""


class DiskError(RunError):
    """Names the file and the reason.

    `machine.on_full_disk` says whether a run goes on without it.
    """


class OutOfMemory(RunError):
    """Names the rank, its batch, and the numbers that would need less."""


class LaunchError(DistganError, RuntimeError):
    """Names what the launcher started and what this process sees."""


class SelfCheckTooLarge(LaunchError):
    """One device cannot take the whole batch, with which the ranks' steps would be compared."""


def innermost_line(error: BaseException, files: Collection[str]) -> tuple[str, int] | None:
    """Return (file, line) of the innermost of these files' lines that an error came through."""
    lines = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename in files
    ]
    return lines[-1] if lines else None


def did_you_mean(word: str, names: Iterable[str], prefix: str = "") -> str:
    """Return ` (did you mean X?)` for the nearest name, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(names), 1)
    return f" (did you mean {prefix}{near[0]}?)" if near else ""
