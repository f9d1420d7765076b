"""Run a person's command when a sweep has ended, as a list of arguments and through no shell."""

import json
import os
import shlex
import subprocess

from distgan.core import console

TIMEOUT_S = 60.0


def read_command(word: str) -> list[str]:
    """Return the arguments of a command: a JSON list of texts, or words quoted as in a shell.

    ValueError if it is neither, or empty.
    """
    words = json.loads(word) if word.lstrip().startswith("[") else shlex.split(word)
    if not words or not all(isinstance(each, str) and each for each in words):
        raise ValueError
    return words


def notify(command: list[str], sweep: str, summary: str) -> None:
    """Run `command` once, with `summary` as its input and the sweep's name as DISTGAN_SWEEP.

    What goes wrong is a warning: the sweep has ended all the same.
    """
    try:
        result = subprocess.run(
            command,
            input=f"sweep {sweep} has ended: {summary}\n",
            env={**os.environ, "DISTGAN_SWEEP": sweep},
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        console.complain(f"warning: --notify: {error}")
        return
    if result.returncode:
        words = result.stderr.strip()[-200:]
        console.complain(f"warning: --notify: {command[0]} ended with {result.returncode}: {words}")
