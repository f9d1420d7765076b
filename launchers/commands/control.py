"""`distgan stop`, `save`, `cancel`, `retry`: act on submitted runs, and print what was done to
each.
"""

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distgan.config import loading
from distgan.core import console
from distgan.core.arguments import MANY, Arguments, Command, Option, one_of, switch
from distgan.core.errors import ConfigError, LaunchError
from distgan.core.files import disk_errors, opener, remove, touch, user_name
from distgan.core.reading import parse_json
from distgan.launchers.executors import interface as executors
from distgan.launchers.runs.plan import snapshot_files
from distgan.launchers.runs.selection import RUNS, TARGET, SelectedRun, read_submission, select
from distgan.launchers.slurm import client, submission
from distgan.launchers.slurm.ledger import Ledger, Submission
from distgan.launchers.slurm.profiles import Resources
from distgan.launchers.slurm.submission import RunSpec
from distgan.runs.folder import SAVE, STOP

AGAIN = ("failed", "cancelled", "stopped", "lost", "unknown")


def _command(verb: str, does: str, *options: Option) -> Command:
    return Command(
        verb,
        does,
        (RUNS, switch("dry-run", "only say what would be done"), *options),
        ("TARGET …", TARGET),
        least=1,
        most=MANY,
        epilog=f"example: distgan {verb} ngf-study:3    a member of a sweep; its name means all",
    )


STOP_RUNS = _command(
    "stop",
    """Ask running runs to save and leave, at the next step. They end as `stopped`; `distgan
retry` goes on with them.""",
)
SAVE_RUNS = _command("save", "Ask running runs for a checkpoint now; they go on.")
CANCEL_RUNS = _command(
    "cancel",
    """Take runs out of the queue, and end those that run: they have Slurm's KillWait to save. They
stay cancelled until `distgan retry`.""",
)
RETRY_RUNS = _command(
    "retry",
    """Submit again, each from its last checkpoint, what failed, was cancelled or stopped, is
lost, or ended in an unknown way. Settings stay as they were; for other settings submit another
run.""",
    one_of("only", "only runs in this state (default: all five)", *AGAIN, repeat=True),
    Option(
        "set",
        "with another job: time=24h, mem_gb=64, partition=… (a profile's keys)",
        "KEY=VALUE",
        repeat=True,
    ),
    Option("trust-owner", "run what this user has submitted as oneself", "NAME"),
)


def _select(options: Arguments) -> list[SelectedRun]:
    return select(options.runs.resolve(), options.words, acting=True)


def _report(selected: Sequence[SelectedRun], does: Callable[[SelectedRun], str]) -> int:
    for run in selected:
        console.say(f"{f'{run.sweep}:{run.index}' if run.sweep else run.folder.name}  {does(run)}")
    return 0


def stop(argv: list[str]) -> int:
    """Ask runs to save and leave; `distgan retry` continues them."""
    options = STOP_RUNS.parse(argv)

    def does(run: SelectedRun) -> str:
        if run.state.name not in ("running", "stopping"):
            return f"is {run.state.name}; nothing to stop" + (
                " (distgan cancel takes it out of the queue)"
                if run.state.name in ("queued", "requeued")
                else ""
            )
        return _touch(run, STOP, options.dry_run) or "was asked to save and leave"

    return _report(_select(options), does)


def save(argv: list[str]) -> int:
    """Ask runs for a checkpoint now."""
    options = SAVE_RUNS.parse(argv)
    return _report(
        _select(options),
        lambda run: (
            _touch(run, SAVE, options.dry_run) or "was asked for a checkpoint"
            if run.state.name == "running"
            else f"is {run.state.name}; only a running one can save"
        ),
    )


def _touch(run: SelectedRun, name: str, dry_run: bool) -> str | None:
    if dry_run:
        return f"would get the file {name}"
    with disk_errors(run.folder / name):
        touch(run.folder / name)
    return None


def cancel(argv: list[str]) -> int:
    """Take runs out of the queue, or end them."""
    options = CANCEL_RUNS.parse(argv)
    selected = _select(options)
    active = [run for run in selected if run.queue_entry and run.queue_entry.active]
    shared = {
        run.key: [
            folder
            for folder in run.submitted.submission.members[run.submitted.element]
            if folder not in {str(other.folder) for other in selected}
        ]
        for run in active
        if run.submitted
    }
    for key, others in shared.items():
        if others:
            raise LaunchError(
                f"job {key} also trains {', '.join(Path(folder).name for folder in others)}; name"
                " these, too, or use `distgan stop`"
            )
    # Runs of other users whose jobs Slurm hides: this gives them up.
    refused: dict[str, str] = {}
    hidden = [run for run in selected if run.state.name == "uncertain" and run.key]
    if not options.dry_run:
        ledger = Ledger(options.runs.resolve())
        for local in (True, False):  # recorded before the next is asked, which may not answer
            mine = [
                run
                for run in [*active, *hidden]
                if run.submitted and run.submitted.submission.is_local == local
            ]
            signalled = [run.submitted for run in mine if run.submitted and run in active]
            refused |= executors.cancel(ledger.home, signalled)
            for run in mine:
                if run.submitted and run.key not in refused:
                    ledger.append(
                        {
                            "state": "cancelled",
                            "id": run.submitted.submission.id,
                            "runs": [str(run.folder)],
                        }
                    )

    def does(run: SelectedRun) -> str:
        if run not in [*active, *hidden]:
            return f"is {run.state.name}; nothing to cancel"
        if run.key in refused:
            owner = run.queue_entry.user if run.queue_entry else ""
            return (
                f"was NOT cancelled: {refused[run.key]} (job {run.key}"
                f"{f' of user {owner}' if owner else ''})"
            )
        return "would be cancelled" if options.dry_run else f"cancelled (job {run.key})"

    _report(selected, does)
    return 2 if refused else 0


def retry(argv: list[str]) -> int:
    """Submit failed, cancelled, stopped, lost and unknown runs again."""

    options = RETRY_RUNS.parse(argv)
    home = options.runs.resolve()
    _select(options)  # wrong names are reported before anything is written
    ledger = Ledger(home)
    with ledger.locked():
        selected = _select(options)
        chosen = [run for run in selected if run.state.name in (options.only or AGAIN)]
        by_job: dict[str, tuple[Submission, list[SelectedRun]]] = {}
        for run in chosen:
            if run.submitted is None:
                raise ConfigError(
                    f"{run.folder.name} was never submitted from {home}: submit it with `distgan"
                    " submit`"
                )
            last = run.submitted.submission
            by_job.setdefault(last.id, (last, []))[1].append(run)
        done: dict[Path, str] = {}
        for last, group in by_job.values():
            again = _again(home, ledger, last, group, options)
            done |= {
                run.folder: (
                    f"submitted again as job {again}" if again else "would be submitted again"
                )
                for run in group
            }
    return _report(
        selected,
        lambda run: done.get(run.folder) or f"is {run.state.name}; left as it is" + _release(run),
    )


def _release(run: SelectedRun) -> str:
    return f" (scontrol release {run.key})" if run.state.name == "held" else ""


def _again(
    home: Path, ledger: Ledger, last: Submission, group: list[SelectedRun], options: Arguments
) -> str | None:
    """Submit runs of one submission, `last`, again as they were submitted; return the job, None
    with --dry-run.
    """
    recorded, words = read_submission(home, group[0])
    if not all(str(run.folder) in words for run in group):
        raise LaunchError(
            f"submission.json of {group[0].folder.name} in {ledger.home} is missing or damaged;"
            " submit the same line, or the sweep's file, again"
        )
    resources = loading.validate(Resources, recorded["resources"], options.set, what="the job")
    resources = resources.model_copy(update={"pack": 1})
    elements = [[RunSpec(str(run.folder), tuple(words[str(run.folder)]))] for run in group]
    path = ledger.home / last.id / "submission.json"
    if not _is_trusted(path, group[0].folder.name, recorded, elements, resources, options):
        return None
    for run in group:  # in a chain: the run that it grows from must be done
        grow = [word for word in words[str(run.folder)] if word.startswith("grow=")]
        source = grow[0][5:].rpartition("@")[0] if grow else ""
        if source and Path(source).is_absolute() and not (Path(source) / "DONE").exists():
            raise LaunchError(
                f"{run.folder.name} grows from {source}, which is not done; submit the sweep's file"
                " again: it waits for that"
            )
    for run in group:
        with disk_errors(run.folder):
            remove(run.folder / "NO_RESTART")
            remove(run.folder / STOP)
    files = ledger.home / "files"
    elements = [[RunSpec(run.folder, snapshot_files(run.words, files))] for (run,) in elements]
    kept = {key: value for key, value in last.details.items() if key == "sweep"}
    executor = executors.of(home, last)
    return executor.submit(home, elements, resources, cwd=recorded.get("cwd"), **kept).job


def _is_trusted(
    path: Path,
    name: str,
    recorded: dict[str, Any],
    elements: list[list[RunSpec]],
    resources: Resources,
    options: Arguments,
) -> bool:
    """Return whether what was read from `path`, the submission.json of the run `name`, may be
    executed by this user.

    With --dry-run print it, and return False. LaunchError where another user has written the file,
    or may have, unless --trust-owner names its owner.
    """
    cwd = recorded.get("cwd")
    with disk_errors(path, "submit the same line, or the sweep's file, again", LaunchError):
        with open(path, "rb", opener=opener) as file:  # owner and content of one file
            about, text = os.fstat(file.fileno()), file.read()
    if parse_json(text) != recorded or cwd and not f"{cwd}".isprintable():
        raise LaunchError(f"{path} was changed while it was read, or is damaged; try again")
    train = [*(resources.program or ("distgan", "train"))]
    local = recorded.get("executor") == "local"
    script = submission.script(path.parent, len(elements), resources, cwd) if not local else ""
    shown = "\n".join(
        [
            script.rstrip() or f"cd {shlex.quote(str(cwd))}",
            *(f"# it trains: {shlex.join([*train, *member.words])}" for (member,) in elements),
        ]
    )
    owner = user_name(about.st_uid)
    if options.dry_run:
        console.say(f"submitted by user {owner}; its job would be\n\n{shown}\n")
        return False
    trusted = () if about.st_mode & 0o022 else (client.user(), "root")
    if owner not in (*trusted, options.trust_owner):
        line = console.command("retry", *options.line("trust-owner"), f"--trust-owner={owner}")
        others = ", and others may write it" if not trusted else ""
        raise LaunchError(
            f"{path} belongs to user {owner}{others}; you, {client.user()}, would execute what it"
            f" says. The job of {name} would be\n\n{shown}\n\nnothing was submitted. If"
            f" you would type every line of it yourself: {line}"
        )
    return True
