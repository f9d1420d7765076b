"""Submit runs by one call of sbatch, through submitit: an array, or a plain job for one element.

No process has to stay alive afterwards. submitit makes the job script from `parameters`.
"""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distgan.core.errors import LaunchError
from distgan.core.files import disk_errors, make_folder, only_owner_writes, write_atomic
from distgan.launchers.slurm import client, snapshot
from distgan.launchers.slurm.job import Job
from distgan.launchers.slurm.ledger import Ledger, Submission
from distgan.launchers.slurm.limits import read_limits, remedy
from distgan.launchers.slurm.profiles import Resources


@dataclass(frozen=True)
class RunSpec:
    """One run. `words`: the arguments of `distgan train`, without the run folder."""

    folder: str
    words: tuple[str, ...]


def submit(
    home: Path,
    elements: list[list[RunSpec]],
    resources: Resources,
    dependency: str | None = None,
    cwd: str | None = None,
    **details: Any,
) -> Submission:
    """Submit all elements by one sbatch; each element trains its runs beside each other.

    Raise LaunchError with sbatch's words; nothing is queued then. `cwd`: the folder that relative
    paths in the words refer to, by default that of this process. `details` are kept in the ledger,
    such as the sweep.
    """
    ledger, rows = Ledger(home), [[member.folder for member in members] for members in elements]
    code = snapshot.take(home / "_code")
    for member in (member for members in elements for member in members):
        with disk_errors(Path(member.folder)):
            make_folder(Path(member.folder))
        snapshot.link(Path(member.folder), code)
    cwd, facts = cwd or os.getcwd(), read_limits(resources.partition)
    submission = ledger.begin(rows, resources=resources.model_dump(mode="json"), **details)
    folder = ledger.home / submission.id
    record = {
        "id": submission.id,
        "elements": [[asdict(member) for member in members] for members in elements],
        "resources": resources.model_dump(mode="json"),
        "signals_all": facts.signals_all,
        "cwd": cwd,
    }
    try:
        with only_owner_writes():
            folder.mkdir()
            write_atomic(folder / "submission.json", json.dumps(record))
            copies = {Path(member.words[0]) for members in elements for member in members}
            files = sorted(path for path in copies if path.parent == ledger.home / "files")
            job = _sbatch(
                folder, submission.name, len(elements), resources, code, dependency, cwd, files
            )
    except Exception as error:
        accepted = _accepted(submission.name)
        if accepted is None:
            raise LaunchError(
                f"{error}\nIt is unknown whether Slurm has accepted the job; run the same line"
                " again in a few minutes to find out"
            ) from error
        if not accepted:
            ledger.void(submission, str(error)[:300])
            raise
        job = accepted
    ledger.submitted(submission, job, len(elements) > 1)
    return submission


def _accepted(name: str) -> str | None:
    """Return the job that a failed sbatch has queued all the same; "" if none, None if unknown."""
    try:
        return next(
            (
                key.partition("_")[0]
                for key, row in client.queue().items()
                if row.name == name and not row.refused
            ),
            "",
        )
    except LaunchError:
        return None


def _sbatch(
    folder: Path,
    name: str,
    count: int,
    resources: Resources,
    code: Path,
    dependency: str | None,
    cwd: str,
    files: list[Path],
) -> str:
    import submitit

    with _environment(code):
        executor = submitit.SlurmExecutor(folder, max_num_timeout=resources.time_outs)
        options = parameters(folder, name, count, resources, dependency, cwd)
        options["setup"].insert(-1, snapshot.check(code, folder, *files))
        executor.update_parameters(**options)
        # The job script takes the pickle from here: submitit itself moves pickles to their jobs
        # after sbatch, which a killed process would not do.
        submitit.core.utils.DelayedSubmission(Job(str(folder))).dump(folder / "job.pkl")
        try:
            with executor.batch():
                jobs = [executor.submit(Job(str(folder))) for _ in range(count)]
        except submitit.core.utils.FailedJobError as error:
            raise LaunchError(_refusal(str(error))) from error
        return jobs[0].job_id.partition("_")[0]


def _refusal(words: str) -> str:
    """Return the message on a job that sbatch refused: its own words, and the remedy."""
    said = [line for line in words.strip().splitlines() if "sbatch: error: " in line]
    text = " ".join(line.partition("sbatch: error: ")[2].strip() for line in said)
    text = (text or words.strip())[-600:]
    return "\n".join(filter(None, [f"sbatch refused the job: {text}", remedy(text)]))


def parameters(
    folder: Path,
    name: str,
    count: int,
    resources: Resources,
    dependency: str | None = None,
    cwd: str | None = None,
) -> dict[str, Any]:
    """Return the parameters of submitit's executor."""
    pickle = (
        f"{shlex.quote(str(folder))}/"
        + ("${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" if count > 1 else "${SLURM_JOB_ID}")
        + "_submitted.pkl"
    )
    optional = {
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "gpus_per_node": resources.gpus or None,
        "mem": f"{int(resources.mem_gb * 1024)}MB" if resources.mem_gb else None,
        "nodelist": resources.nodelist,
        "exclude": resources.exclude,
        "dependency": dependency,
    }
    return {
        "job_name": name,
        "time": resources.minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": resources.cpus * resources.per_node * resources.pack,
        "signal_delay_s": resources.signal_lead_s,
        "array_parallelism": min(resources.max_parallel or count, count),
        # A dead rank must not leave the others hanging. Since Slurm 22.05 srun does not take over
        # the processors of the job by itself.
        "srun_args": [
            "--kill-on-bad-exit=1",
            "--wait=60",
            f"--cpus-per-task={resources.cpus * resources.per_node * resources.pack}",
        ],
        "setup": [
            *resources.setup,
            f"[ -e {pickle} ] || cp {shlex.quote(str(folder / 'job.pkl'))} {pickle}",
        ],
        "additional_parameters": {
            "requeue": True,
            **({"chdir": cwd} if cwd else {}),
            **({"kill-on-invalid-dep": "yes"} if dependency else {}),
            **{key: value for key, value in resources.sbatch.items() if value is not False},
        },
        **{key: value for key, value in optional.items() if value is not None},
    }


@contextlib.contextmanager
def _environment(code: Path | None) -> Iterator[None]:
    """Enter an environment without a surrounding job, in which the job imports the snapshot."""
    saved = dict(os.environ)
    os.environ.clear()
    os.environ.update(client.clean_environment(saved))
    if code:
        # `python -m` would put the working directory first: often the checkout, which may change.
        os.environ["PYTHONSAFEPATH"] = "1"
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # the copy stays what it is
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(code.resolve()), *filter(None, [saved.get("PYTHONPATH")])]
        )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


def script(folder: Path, count: int, resources: Resources, cwd: str | None = None) -> str:
    """Return the script that sbatch would be given, but for the check of the code's copy."""
    from submitit.slurm.slurm import _make_sbatch_string

    return _make_sbatch_string(
        command=shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(folder)]),
        folder=folder,
        map_count=count if count > 1 else None,
        **parameters(folder, "distgan-test", count, resources, cwd=cwd),
    )


def test_only(resources: Resources, count: int = 1) -> str:
    """Return when and where `sbatch --test-only` would start such a job.

    Raise LaunchError if Slurm would refuse it.
    """
    with tempfile.TemporaryDirectory() as folder, _environment(None):
        path = Path(folder) / "job.sh"
        path.write_text(script(Path(folder), count, resources))
        try:
            result = subprocess.run(
                ["sbatch", "--test-only", str(path)], capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LaunchError(f"sbatch --test-only: {error}") from error
    output = (result.stderr or result.stdout).strip()
    if result.returncode:
        raise LaunchError(_refusal(output).replace("refused the job", "would refuse such a job"))
    return output.removeprefix("sbatch: ")
