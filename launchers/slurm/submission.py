"""Submit runs by one call of sbatch, through submitit: an array, or a plain job for one element.

No process has to stay alive afterwards. submitit makes the job script from `parameters`.
"""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distgan.core.errors import ConfigError, LaunchError
from distgan.core.files import disk_errors, make_folder, only_owner_writes, write_atomic
from distgan.launchers.slurm import client, profiles, snapshot
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
    if "%" in str(home):
        raise LaunchError(f"{home}: Slurm reads % in the path of a log as a pattern; rename it")
    ledger, (code, rows) = Ledger(home), prepare(home, elements)
    cwd, facts = cwd or os.getcwd(), read_limits(resources.partition)
    shell = passed_on(resources)
    submission = ledger.begin(rows, resources=resources.model_dump(mode="json"), **details)
    folder = ledger.home / submission.id
    record = {
        "id": submission.id,
        "elements": [[asdict(member) for member in members] for members in elements],
        "resources": resources.model_dump(mode="json"),
        "signals_all": facts.signals_all,
        "cwd": cwd,
        "shell": shell,
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


def prepare(home: Path, elements: list[list[RunSpec]]) -> tuple[Path, list[list[str]]]:
    """Make the folders of runs and link them to a copy of the code; return (the copy, the folders
    of each element).
    """
    code = snapshot.take(home / "_code")
    for member in (member for members in elements for member in members):
        with disk_errors(Path(member.folder)):
            make_folder(Path(member.folder))
        snapshot.link(Path(member.folder), code)
    return code, [[member.folder for member in members] for members in elements]


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

    with _environment(resources):
        executor = submitit.SlurmExecutor(folder, max_num_timeout=resources.time_outs)
        options = parameters(folder, name, count, resources, dependency, cwd)
        options["setup"] += [snapshot.check(code, folder, *files), *_imports(code)]
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
    text = "; ".join(line.partition("sbatch: error: ")[2].strip() for line in said)
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
        "gpus_per_node": _gpus(resources),
        "mem": f"{int(resources.mem_gb * 1024)}MB" if resources.mem_gb else None,
        "nodelist": resources.nodelist,
        "exclude": resources.exclude,
        "dependency": dependency,
    }
    setup = checked_setup(resources.setup)
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
        # By --export=NONE, of the profile or of SBATCH_EXPORT, srun would give the task nothing.
        "srun_args": [
            "--export=ALL",
            "--kill-on-bad-exit=1",
            "--wait=60",
            f"--cpus-per-task={resources.cpus * resources.per_node * resources.pack}",
        ],
        "setup": [
            *setup,
            f"[ -e {pickle} ] || cp {shlex.quote(str(folder / 'job.pkl'))} {pickle}",
        ],
        "wckey": None,
        "additional_parameters": {
            "requeue": True,
            **({"chdir": cwd} if cwd else {}),
            **({"kill-on-invalid-dep": "yes"} if dependency else {}),
            **{key: value for key, value in resources.sbatch.items() if value is not False},
        },
        **{key: value for key, value in optional.items() if value is not None},
    }


def _gpus(resources: Resources) -> int | str | None:
    """Return the value of --gpus-per-node; None without GPUs, or where `gres` asks for them."""
    if not resources.gpus or "gres" in resources.sbatch:
        return None
    kind = resources.gpu_type
    return f"{kind}:{resources.gpus}" if kind else resources.gpus


def checked_setup(lines: Sequence[str]) -> list[str]:
    """Return the lines of a profile's setup, each followed by a check that ends the job.

    Lines that are whole commands only together, as those of an `if`, are checked as one.
    ConfigError where the shell cannot read them.
    """
    if not lines:
        return []
    whole = all(_unreadable(line) is None for line in lines)
    parts = list(lines) if whole else ["\n".join(lines)]
    if not whole and (fault := _unreadable(parts[0])):
        raise ConfigError(f"setup: the shell cannot read these lines: {fault}")
    check = (
        "distgan_check() { local code=$?; [ $code -eq 0 ] && return; echo"
        ' "error: setup: exit code $code of: $1" >&2; exit 1; }'
    )
    return [check, *(f"{part}\ndistgan_check {shlex.quote(part)}" for part in parts)]


def _unreadable(text: str) -> str | None:
    result = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True)
    return result.stderr.strip()[-300:] if result.returncode or result.stderr else None


def _imports(code: Path) -> list[str]:
    """Return the lines of a job's script by which the job imports the snapshot, and nothing of the
    working directory, which is often the checkout.

    In the script, since --export=NONE gives a job nothing of the shell that submitted it.
    """
    path = shlex.quote(str(code.resolve()))
    return [
        f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1",
        "export PYTHONDONTWRITEBYTECODE=1",  # the copy stays what it is
    ]


# What the script gives itself, or gives on purpose not; sbatch ranks the variables above it.
_REPLACED = re.compile(
    r"SBATCH_(ARRAY_INX|JOB_NAME|OUTPUT|ERROR|INPUT|OPEN_MODE|SIGNAL|WAIT|(NO_)?REQUEUE|DEPENDENCY"
    r"|KILL_INVALID_DEP|TEST_ONLY|\w*GPUS?(_\w+)?)$"
)


def passed_on(resources: Resources) -> dict[str, str]:
    """Return the SBATCH_… variables of this shell that sbatch adds to what a job asks for.

    LaunchError for another cluster: the other commands would ask this one.
    """
    variables = {
        name: value
        for name, value in client.clean_environment(dict(os.environ)).items()
        if name.startswith("SBATCH_")
    }
    if clusters := variables.get("SBATCH_CLUSTERS"):
        raise LaunchError(
            f"SBATCH_CLUSTERS={clusters}: squeue and sacct would ask another cluster; unset it, and"
            f" export SLURM_CLUSTERS={clusters}, which all of Slurm's commands follow"
        )
    given = {f"SBATCH_{key.upper()}" for key in resources.sbatch} | profiles.SHELL.keys()
    if resources.mem_gb or {"mem_per_cpu", "mem_per_gpu"} & resources.sbatch.keys():
        given |= {"SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU"}
    return {
        name: value
        for name, value in variables.items()
        if name not in given
        and not _REPLACED.match(name)
        and not (name == "SBATCH_GRES" and "gpu" in value)
    }


@contextlib.contextmanager
def _environment(resources: Resources) -> Iterator[None]:
    """Enter an environment without a surrounding job, and without the SBATCH_… variables that
    would win against the script.
    """
    saved, passed = dict(os.environ), passed_on(resources)
    clean = client.clean_environment(saved)
    os.environ.clear()
    os.environ.update(
        {n: value for n, value in clean.items() if n in passed or not n.startswith("SBATCH_")}
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


def submit_probe(folder: Path, resources: Resources, code: Path, words: list[str]) -> str:
    """Submit a job as `submit` makes them that runs `words` in place of a training; return it."""
    from submitit.slurm.slurm import _make_sbatch_string

    options = parameters(folder, folder.name, 1, resources)
    options["setup"] = [*options["setup"][:-1], *_imports(code)]
    path = folder / "job.sh"
    path.write_text(_make_sbatch_string(command=shlex.join(words), folder=folder, **options))
    return _sbatch_words("--parsable", str(path), resources=resources).partition(";")[0].strip()


def _sbatch_words(*words: str, resources: Resources) -> str:
    """Return what sbatch prints; LaunchError with its words and the remedy if it refuses."""
    with _environment(resources):
        try:
            result = subprocess.run(["sbatch", *words], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LaunchError(f"sbatch: {error}") from error
    if result.returncode:
        text = _refusal(result.stderr or result.stdout)
        if "--test-only" in words:
            text = text.replace("refused the job", "would refuse such a job")
        raise LaunchError(text)
    return (result.stdout or result.stderr).strip()


def test_only(resources: Resources, count: int = 1) -> str:
    """Return when and where `sbatch --test-only` would start such a job.

    Raise LaunchError if Slurm would refuse it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.sh"
        path.write_text(script(Path(folder), count, resources))
        said = _sbatch_words("--test-only", str(path), resources=resources)
    return said.removeprefix("sbatch: ")
