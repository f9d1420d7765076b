"""`distgan sweep`: train the runs of a sweep file, or of `key=a,b`, as arrays of Slurm. The same
line again submits what is missing.
"""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from distgan.core import console
from distgan.core.arguments import MANY, Arguments, Command, Option, one_of, switch
from distgan.core.errors import LaunchError, RunError
from distgan.launchers.executors import interface as executors
from distgan.launchers.runs.selection import read_sweeps
from distgan.launchers.slurm import profiles
from distgan.launchers.sweeps import comparison, definition, notify
from distgan.launchers.sweeps.members import Sweep, is_name, plan_sweep
from distgan.launchers.sweeps.reconcile import reconcile, select_members
from distgan.recipes._catalog import recipe_names

EPILOG = """examples:
  distgan sweep sagan data=data/particles ngf=64,96 seed=0,1,2 --profile gpu --max-parallel 4
                                           6 runs, 4 at a time
  distgan sweep sweep.yaml                 a file; `distgan sweep --help-file` shows its keys
  distgan sweep sweep.yaml --dry-run       the plan, its cost, and when Slurm would start it
  distgan sweep sweep.yaml --pack 4        four small models beside each other in each job
  distgan sweep sweep.yaml --here --parallel 2
                                           on this machine, two runs at a time; --gpus 0,1,2,3:
                                           one on each of these GPUs. Closing the terminal ends
                                           nothing; the same line again continues what was ended
  distgan sweep sweep.yaml --retry failed  submit failed runs again, too
  distgan sweep NAME --report              compare the runs of a sweep, by its name, file or words

No process has to stay alive. The same line again submits what is missing, leaves queued, running
and finished runs alone, and lists failed ones."""


def _name(word: str) -> str:
    if not is_name(word):
        raise ValueError
    return word


def _check(options: Arguments) -> Iterator[str]:
    if not options.words and not options.help_file:
        yield "SWEEP.yaml|RECIPE|RUN.yaml: missing"
    if options.notify and not options.watch:
        yield "--notify needs --watch, which stays until the sweep has ended"


COMMAND = Command(
    "sweep",
    """Train the runs of a sweep file, or of `key=a,b`, as arrays of Slurm. The same line again
submits what is missing.""",
    (
        Option(
            "name",
            "name of the sweep (default: that of its file, or made from recipe and keys)",
            "NAME",
            allowed="letters, digits, _ - and ., at most 80",
            read=_name,
        ),
        switch("dry-run", "check everything and ask Slurm when it would start; submit nothing"),
        one_of(
            "retry",
            "submit members in this state again, too",
            "failed",
            "cancelled",
            "stopped",
            "unknown",
            repeat=True,
        ),
        switch("prune", "cancel runs that are no longer members"),
        switch("report", "compare the members; submit nothing"),
        switch("watch", "stay: submit again when limits of the cluster allow, report at the end"),
        Option(
            "notify",
            "with --watch: run this once when all members have ended; its input is a line about it",
            "COMMAND",
            allowed="words quoted as in a shell, or a JSON list",
            read=notify.read_command,
        ),
        switch("help-file", "print the keys of a sweep file"),
        *executors.OPTIONS,
        *profiles.job_options(many=True),
    ),
    (
        "SWEEP.yaml|RECIPE|RUN.yaml [key=value key=a,b …]",
        "`key=a,b` and `'key=range(3)'` make one member for each combination",
    ),
    most=MANY,
    settings=lambda words: words and definition.read(words),
    check=_check,
    epilog=EPILOG,
)


def main(argv: list[str]) -> int:
    options = COMMAND.parse(argv)
    if options.help_file:
        console.say(
            "Keys of a sweep file. Only `recipe` and one kind of members are required.\n"
            + definition.__doc__.partition("\n")[2]
        )
        return 0
    if options.report:
        return _report(options)
    sweep = plan_sweep(options)
    if sweep.definition.search:
        from distgan.launchers.sweeps import search

        code = search.advance(sweep, watch=options.watch, dry_run=options.dry_run)
        if options.notify and not options.dry_run:
            notify.notify(options.notify, sweep.name, f"exit code {code}")
        return code
    code = reconcile(sweep, options.retry, options.dry_run, prune=options.prune)
    if not options.watch or options.dry_run:
        return code
    code, summary = _watch(sweep)
    if options.notify:
        notify.notify(options.notify, sweep.name, summary)
    return code


def _report(options: Arguments) -> int:
    """Compare the members of a sweep, given by its name, its words or its file."""
    home, name = Path("runs").resolve(), options.words[0]
    if len(options.words) == 1:
        folders, values = comparison.known(home, name)
        if folders:
            comparison.write(home / "_sweeps" / name, folders, values)
            return 0
        if is_name(name) and name not in recipe_names() and not Path(name).is_file():
            there = ", ".join(read_sweeps(home))
            raise RunError(
                f"no sweep in {home} is named {name}; "
                + (f"there are {there}" if there else "there is none")
                + ". A sweep file or the words of a sweep are allowed, too"
            )
    _compare(plan_sweep(options))
    return 0


def _compare(sweep: Sweep) -> None:
    comparison.write(
        sweep.folder,
        [member.spec.folder for member in sweep.members],
        [member.values for member in sweep.members],
    )


def _watch(sweep: Sweep) -> tuple[int, str]:
    """Submit missing members every 30 seconds until all have ended; then compare them. Return
    (the exit code, how many are in which state).
    """
    while True:
        time.sleep(30)
        try:
            code, selected = reconcile(sweep, [], False, quiet=True), select_members(sweep)
        except LaunchError as error:  # a controller that restarts, another distgan that submits
            console.say(f"warning: {error}; trying again")
            continue
        counts = Counter(run.state.name for run in selected)
        summary = ", ".join(f"{count} {name}" for name, count in counts.items())
        console.say(f"{time.strftime('%H:%M:%S')}  {summary}")
        if set(counts) <= {"done", "failed", "cancelled", "stopped", "unknown", "held"}:
            _compare(sweep)
            return code, summary
