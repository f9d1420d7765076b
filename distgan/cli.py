"""The `distgan` command: one line per verb, imported only when used."""

import importlib
import os
import sys
import time
from collections.abc import Callable

from distgan import __version__
from distgan.commands.completion import SHELLS, Completion, script
from distgan.core import console
from distgan.core import interrupts as interrupts  # early: it notes who the parent is
from distgan.core.arguments import HELP, Command
from distgan.core.errors import (
    DataError,
    DistganError,
    LaunchError,
    OutOfMemory,
    did_you_mean,
)
from distgan.core.files import disk_faults
from distgan.distributed.environment import process_count

VERBS = {
    "shard": (
        "distgan.shards.build.command",
        "turn images, or the built-in particle generator, into WebDataset shards",
    ),
    "index": (
        "distgan.shards.adopt.command",
        "make tars that others wrote a data set to train on, without touching them",
    ),
    "check": (
        "distgan.shards.audit.command",
        "examine shards: damage, and the quality of images and pairs in them",
    ),
    "new": ("distgan.commands.new", "write the file of a GAN of your own, which trains as it is"),
    "train": (
        "distgan.train",
        "train a recipe or a run file; the same program as distgan/train.py",
    ),
    "run": ("distgan.launchers.local.run", "train with several processes on this machine"),
    "debug": (
        "distgan.launchers.local.debug",
        "a few steps in one process, in a folder of its own, with the debugger where it fails",
    ),
    "submit": ("distgan.launchers.commands.submit", "train one run as a job of Slurm"),
    "sweep": (
        "distgan.launchers.sweeps.command",
        "train many runs as arrays of Slurm: what is missing is submitted, the rest left alone",
    ),
    "status": (
        "distgan.launchers.commands.status",
        "submitted runs: state, progress, scores, time left",
    ),
    "logs": ("distgan.launchers.commands.logs", "what a submitted run printed"),
    "why": (
        "distgan.launchers.commands.why",
        "why a run ended as it did, with evidence and the next command",
    ),
    "show": (
        "distgan.launchers.commands.show",
        "of a submitted run: its command, settings, job, or what differs from another",
    ),
    "stop": ("distgan.launchers.commands.control:stop", "ask running runs to save and leave"),
    "save": ("distgan.launchers.commands.control:save", "ask running runs for a checkpoint now"),
    "cancel": (
        "distgan.launchers.commands.control:cancel",
        "take runs out of the queue, or end them",
    ),
    "retry": (
        "distgan.launchers.commands.control:retry",
        "submit again what failed, was cancelled or stopped, or is lost",
    ),
    "cost": ("distgan.launchers.commands.cost", "GPU-hours of runs: useful, lost, failed, to come"),
    "gc": ("distgan.launchers.commands.gc", "free space: what no run needs any more"),
    "doctor": (
        "distgan.launchers.local.doctor",
        "what works on this machine; whether a run's first steps are those of one process",
    ),
    "dev-cluster": (
        "distgan.launchers.slurm.dev_cluster",
        "start and stop a real Slurm on this machine",
    ),
    "capacity": (
        "distgan.launchers.capacity.command",
        "the capacity study: sagan at several widths, measured in one table and one plot",
    ),
    "generate": ("distgan.commands.generate", "images of a trained run's generator, as files"),
    "evaluate": (
        "distgan.commands.evaluate",
        "how near samples, or a folder's images, come to real images, beside the floor",
    ),
    "report": ("distgan.commands.report", "one HTML page and a table from run folders"),
    "completion": ("distgan.cli:completion", "the shell's completion of verbs and options"),
}
SHARED = ("train", "generate", "evaluate")  # by several processes, which leave as ranks do
WAIT_S = 3


def _report_on_other_rank(error: DistganError) -> None:
    """Report an error on another rank than 0, which prints what all ranks met.

    Wait first, because a launcher ends all processes when one exits, and rank 0 may not have
    printed yet. Print what only this rank can have met: damaged data or too little memory at once,
    a LaunchError after the wait.
    """
    own = f"error: rank {os.environ['RANK']}: {error}"
    if isinstance(error, DataError | OutOfMemory) and not error.everywhere:
        console.complain(own)
    time.sleep(WAIT_S)
    if isinstance(error, LaunchError) and not error.everywhere:
        console.complain(own)


def guarded(command: Callable[[list[str]], int], argv: list[str]) -> int:
    """Call a verb; an error the user can act on becomes one message and exit code 2, without a
    traceback. Output that could not be written makes 0 a 1, except of a training.
    """
    console.protect()
    code = _guarded(command, argv)
    lines, reason = console.lost()
    if lines:
        print(f"warning: {lines} lines could not be printed: {reason}", file=sys.stderr)
    return 1 if lines and not code and console.output_matters() else code


def _guarded(command: Callable[[list[str]], int], argv: list[str]) -> int:
    try:
        with disk_faults():
            return command(argv)
    except BrokenPipeError:  # `distgan … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except DistganError as error:
        if console.TALKS:
            console.complain(f"error: {error}")
        else:
            _report_on_other_rank(error)
        return 2
    except MemoryError as error:
        console.complain(f"error: out of memory: {error or 'an allocation failed'}")
        return 2
    except KeyboardInterrupt:
        if console.TALKS:
            print("interrupted; the same line again goes on", file=sys.stderr, flush=True)
        return 130


def command_of(verb: str) -> Command:
    """Return the declaration of a verb's command line."""
    module = importlib.import_module(VERBS[verb][0].partition(":")[0])
    commands = [value for value in vars(module).values() if isinstance(value, Command)]
    return next(command for command in commands if command.verb == verb)


COMPLETION = Command(
    "completion",
    "Print a script that completes verbs, options, recipes and sources in a shell.",
    words=("|".join(SHELLS), "the shell"),
    least=1,
    most=1,
    check=lambda options: (
        f"{word}: allowed: {', '.join(SHELLS)}" for word in options.words if word not in SHELLS
    ),
    epilog="""examples:
  distgan completion bash > ~/.local/share/bash-completion/completions/distgan
  distgan completion zsh > ~/.distgan.zsh; echo 'source ~/.distgan.zsh' >> ~/.zshrc
  distgan completion fish > ~/.config/fish/completions/distgan.fish""",
)


def completion(argv: list[str]) -> int:
    """Print the completion script of a shell; imports no torch."""
    from distgan.recipes._catalog import recipe_names
    from distgan.shards.sources import _base as sources

    shell = COMPLETION.parse(argv).words[0]
    verbs = {}
    for verb, (_, summary) in VERBS.items():
        command = command_of(verb)
        words = recipe_names() if command.settings else command.words[0].split("|")
        if verb == "shard":
            words = sources.source_names()
        options = [(option.name, option.help) for option in (*command.options, HELP)]
        plain = [word for word in words if word.isidentifier() and word.islower()]
        verbs[verb] = Completion(summary, plain, options)
    print(script(shell, verbs))
    return 0


def main() -> None:
    console.protect()
    argv = sys.argv[1:]
    if argv and argv[0] in VERBS:
        module, _, function = VERBS[argv[0]][0].partition(":")
        code = guarded(getattr(importlib.import_module(module), function or "main"), argv[1:])
        if argv[0] in SHARED and process_count()[1] > 1:
            from distgan.distributed.ranks import exit_process

            exit_process(code)
        sys.exit(code)
    sys.exit(guarded(overview, argv))


def overview(argv: list[str]) -> int:
    """Print the version, or all verbs; 2 where a word is no verb."""
    if argv and argv[0] == "--version":
        print(f"distgan {__version__}")
        return 0
    if argv and argv[0] not in ("-h", "--help"):
        print(f"error: {_no_verb(argv)}", file=sys.stderr)
        return 2
    print(
        "distgan: train GANs on images and audio; one run, any cluster\n\nusage: distgan VERB …  "
        " (distgan VERB --help)\n"
    )
    for name, (_, meaning) in VERBS.items():
        print(f"  {name:11} {meaning}")
    return 0


def _no_verb(argv: list[str]) -> str:
    from distgan.recipes._catalog import recipe_names

    word = argv[0]
    if word in recipe_names() or word.endswith(".py"):
        return f"{word} comes after a verb: {console.command('train', *argv)}"
    near = did_you_mean(word, VERBS)
    names = ", ".join(VERBS)
    return f"no verb {word[:60]!r}{near}; there are: {names}. `distgan --help` explains them"
