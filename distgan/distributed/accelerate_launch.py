"""`accelerate launch` that ends as its ranks do: with their exit code, and without a traceback of
its own below the message that they have printed.

Its name is looked for by `core/interrupts.py` where the launcher is process 1 of a container.
"""

import logging
import signal
import sys

from distgan.core import console

STOPPED, INTERRUPTED = 75, 130


def main(argv: list[str]) -> int:
    """Start the processes of an `accelerate launch` line; return the exit code for all of them.

    After a signal it is 75: the ranks were given it, have saved and left, or were killed 30 s
    later; either way the same line goes on. After a second one 130.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # torch logs which signal it passes on and which rank has failed, as the ranks have said.
    logging.disable(logging.ERROR)
    try:
        launch_command(launch_command_parser().parse_args(argv))
    except SignalException as stopped:
        return INTERRUPTED if isinstance(stopped.__context__, SignalException) else STOPPED
    except KeyboardInterrupt:
        return INTERRUPTED
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        return _code(rank, failure.exitcode)
    return 0


def _code(rank: int, code: int) -> int:
    """Return a rank's exit code as a shell would; say what no rank can have said itself."""
    if code >= 0:
        return code
    console.complain(
        f"error: rank {rank} was ended by {signal.Signals(-code).name}"
        + (": often the kernel's, out of memory" if -code == signal.SIGKILL else "")
        + "; the same line again goes on from the last checkpoint"
    )
    return 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
