"""`distgan stop`, `save`, `cancel`, `retry`: act on submitted runs, and print what was done to
each.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from distgan.core import console
from distgan.core.errors import ConfigError, LaunchError
from distgan.core.files import disk_errors
from distgan.launchers.runs import selection
from distgan.launchers.runs.selection import SelectedRun
from distgan.launchers.slurm import client, submission
from distgan.launchers.slurm.ledger import Ledger, Submission
from distgan.launchers.slurm.profiles import Resources
from distgan.launchers.slurm.submission import RunSpec
from distgan.runs.folder import SAVE, STOP

AGAIN = ("failed", "cancelled", "stopped", "lost")


def _options(
    verb: str,
    does: str,
    argv: list[str],
    more: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"distgan {verb}",
        description=does,
        allow_abbrev=False,
        epilog=(
            f"example: distgan {verb} ngf-study:3    one member of a sweep; a sweep's name means"
            " all of them"
        ),
    )
    parser.add_argument(
        "targets", nargs="+", metavar="TARGET", help=selection.HELP.partition("; without")[0]
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="FOLDER",
        help="the folder of runs (default runs)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    more(parser)
    return parser.parse_args(argv)


def _found(options: argparse.Namespace) -> list[SelectedRun]:
    return selection.select(options.runs.resolve(), options.targets)


def _told(found: Sequence[SelectedRun], does: Callable[[SelectedRun], str]) -> int:
    for one in found:
        console.say(f"{f'{one.sweep}:{one.index}' if one.sweep else one.folder.name}  {does(one)}")
    return 0


def stop(argv: list[str]) -> int:
    """Ask runs to save and leave; `distgan retry` continues them."""
    options = _options(
        "stop",
        "Ask running runs to save and leave, at the next step. They end as `stopped`; `distgan"
        " retry` goes on with them.",
        argv,
    )

    def does(one: SelectedRun) -> str:
        if one.state.name not in ("running", "stopping"):
            return f"is {one.state.name}; nothing to stop" + (
                " (distgan cancel takes it out of the queue)"
                if one.state.name in ("queued", "requeued")
                else ""
            )
        return _touch(one, STOP, options.dry_run) or "was asked to save and leave"

    return _told(_found(options), does)


def save(argv: list[str]) -> int:
    """Ask runs for a checkpoint now."""
    options = _options("save", "Ask running runs for a checkpoint now; they go on.", argv)
    return _told(
        _found(options),
        lambda one: (
            _touch(one, SAVE, options.dry_run) or "was asked for a checkpoint"
            if one.state.name == "running"
            else f"is {one.state.name}; only a running one can save"
        ),
    )


def _touch(one: SelectedRun, name: str, dry_run: bool) -> str | None:
    if dry_run:
        return f"would get the file {name}"
    with disk_errors(one.folder / name):
        (one.folder / name).touch()
    return None


def cancel(argv: list[str]) -> int:
    """Take runs out of the queue, or end them."""
    options = _options(
        "cancel",
        "Take runs out of the queue, and end those that run: they have Slurm's KillWait to save."
        " They stay cancelled until `distgan retry`.",
        argv,
    )
    found = _found(options)
    active = [one for one in found if one.queue_entry and one.queue_entry.active]
    shared = {
        one.submitted.key: [
            run
            for run in one.submitted.submission.members[one.submitted.element]
            if run not in {str(other.folder) for other in found}
        ]
        for one in active
        if one.submitted
    }
    for key, others in shared.items():
        if others:
            raise LaunchError(
                f"job {key} also trains {', '.join(Path(run).name for run in others)}; name them,"
                " too, or use `distgan stop`"
            )
    hidden = [
        one for one in found if one.state.name == "uncertain" and one.submitted.key
    ]  # another user's, of which Slurm shows nothing: given up by this
    if not options.dry_run:
        ledger = Ledger(options.runs.resolve())
        for one in [
            *active,
            *hidden,
        ]:  # noted before Slurm is asked: of an element that never ran it keeps no record
            ledger.append(
                {"state": "cancelled", "id": one.submitted.submission.id, "runs": [str(one.folder)]}
            )
        if active:
            client.cancel(dict.fromkeys(one.submitted.key for one in active))
    return _told(
        found,
        lambda one: (
            ("would be cancelled" if options.dry_run else f"cancelled (job {one.submitted.key})")
            if one in [*active, *hidden]
            else f"is {one.state.name}; nothing to cancel"
        ),
    )


def retry(argv: list[str]) -> int:
    """Submit failed, cancelled, stopped and lost runs again."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--only",
            action="append",
            choices=AGAIN,
            help="only runs in this state (default: all four)",
        )
        parser.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="with another job: time=24h, mem_gb=64, partition=… (a profile's keys)",
        )

    options = _options(
        "retry",
        "Submit again, each from its last checkpoint, what failed, was cancelled or stopped, or is"
        " lost. Settings stay as they were; for other settings submit another run.",
        argv,
        more,
    )
    home = options.runs.resolve()
    _found(options)  # wrong names are reported before anything is written
    ledger = Ledger(home)
    with ledger.locked():
        found = _found(options)
        chosen = [one for one in found if one.state.name in (options.only or AGAIN)]
        by_job: dict[str, list[SelectedRun]] = {}
        for one in chosen:
            if one.submitted is None:
                raise ConfigError(
                    f"{one.folder.name} was never submitted from {home}: submit it with `distgan"
                    " submit`"
                )
            by_job.setdefault(one.submitted.submission.id, []).append(one)
        done: dict[Path, str] = {}
        for group in by_job.values():
            if not options.dry_run:
                for one in group:
                    (one.folder / "NO_RESTART").unlink(missing_ok=True)
                    (one.folder / STOP).unlink(missing_ok=True)
            again = _again(home, ledger, group, options)
            done |= {
                one.folder: (
                    f"submitted again as job {again}" if again else "would be submitted again"
                )
                for one in group
            }
    return _told(found, lambda one: done.get(one.folder) or f"is {one.state.name}; left as it is")


def _again(
    home: Path, ledger: Ledger, group: list[SelectedRun], options: argparse.Namespace
) -> str | None:
    """Submit runs of one submission again as they were submitted; return the job, None with
    --dry-run.
    """
    from distgan.config import loading
    from distgan.launchers.runs.state import read

    about = read(ledger.home / group[0].submitted.submission.id / "submission.json")
    words = {
        member["folder"]: member["words"]
        for members in about.get("elements", [])
        for member in members
    }
    if not all(str(one.folder) in words for one in group):
        raise LaunchError(
            f"{ledger.home / group[0].submitted.submission.id / 'submission.json'} is gone or damaged;"
            " submit the same line, or the sweep's file, again"
        )
    resources = loading.validate(Resources, about["resources"], options.set, what="the job")
    if options.dry_run:
        return None
    for one in group:  # of a chain: what it grows from must be there
        source = next(
            (
                word[5:].rpartition("@")[0]
                for word in words[str(one.folder)]
                if word.startswith("grow=")
            ),
            None,
        )
        if source and Path(source).is_absolute() and not (Path(source) / "DONE").exists():
            raise LaunchError(
                f"{one.folder.name} grows from {source}, which is not done; submit the sweep's file"
                " again: it waits for that"
            )
    resources = resources.model_copy(update={"pack": 1})
    elements = [[RunSpec(str(one.folder), tuple(words[str(one.folder)]))] for one in group]
    one: Submission = submission.submit(
        home,
        elements,
        resources,
        cwd=about.get("cwd"),
        **{
            key: value
            for key, value in group[0].submitted.submission.about.items()
            if key == "sweep"
        },
    )
    return one.job
