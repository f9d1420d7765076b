"""Read the limits of a cluster, of a partition, and of an account and its quality of service; and
the remedy for each kind of job that sbatch refuses.
"""

import re
import shutil
from dataclasses import dataclass

from distgan.core.errors import LaunchError
from distgan.launchers.slurm.client import parse_duration, read_config, run_command, show, user

_NUMBER = re.compile(r"\d+")
# Words of sbatch, or a reason of squeue, and what to do. The first that fits is it.
REMEDIES: tuple[tuple[str, str], ...] = (
    (
        r"invalid partition|PartitionNotFound",
        "`sinfo` lists the partitions; --partition NAME, or `partition` in the profile",
    ),
    (
        r"time limit (is )?invalid|exceeds? .*time|PartitionTimeLimit|WallDurationPerJob",
        "`sinfo -o '%P %l'` shows how long a job may run; give a shorter --time: a run goes on in"
        " the next job",
    ),
    (
        r"MaxSubmitJob|QOSMax\w*PerUser|accounting/QOS policy|MaxJobs|job submit limit",
        "the limit of jobs is reached: run the same line again when some have ended (`distgan sweep"
        " … --watch` does); `distgan doctor --slurm` prints the limit",
    ),
    (
        r"invalid account|account/partition combination",
        "`sacctmgr show assoc user=$USER format=account,partition,qos` lists yours; --account NAME",
    ),
    (
        r"invalid qos",
        "`sacctmgr show assoc user=$USER format=account,qos` lists yours; --set qos=NAME",
    ),
    (
        r"invalid (generic resource|gres|trackable resource)|gres/gpu",
        "`sinfo -o '%P %G'` lists GPUs and their types; --gpus N or --gpus TYPE:N",
    ),
    (
        r"node configuration is not available|BadConstraints|more processors requested"
        r"|memory specification can ?not|node count specification invalid|invalid feature",
        "no node of the partition has all of this: `sinfo -o '%P %D %c %m %G %f'` lists"
        " processors, MB, GPUs and features of each; give less of --cpus, --gpus, --nodes or"
        " --set mem_gb=…, or another --partition or --set constraint=…",
    ),
    (
        r"invalid node name|invalid host",
        "`sinfo -N` lists the nodes; --set nodelist=… and --set exclude=… name some of them",
    ),
    (
        r"required node not available|partition .*(not available|down|inactive|drain)",
        "`sinfo -R` shows why; wait, or choose another --partition",
    ),
    (
        r"invalid wckey",
        "this cluster charges by wckey: --set 'sbatch={wckey: NAME}'",
    ),
    (
        r"access/permission denied|not permitted to use|user's group",
        "this account may not use that partition: `scontrol show partition NAME` lists who may;"
        " --account or --partition",
    ),
    (
        r"unable to contact|socket timed out|connection refused|zero bytes|communication",
        "the controller does not answer: `scontrol ping`; run the same line again in a minute",
    ),
    (
        r"no space left|writing script|state ?save",
        "a disk of the controller is full: only its administrators can mend that",
    ),
    (
        r"unrecognized option|invalid option|ambiguous option|invalid \S+ specification",
        "an option of the profile is unknown to this Slurm: `distgan show` or --dry-run prints the"
        " script, `sbatch --help` the options",
    ),
)


def remedy(words: str) -> str:
    """Return what to do about a job that Slurm refused with these words; "" if it is not known."""
    return next(
        (text for pattern, text in REMEDIES if re.search(pattern, words, re.IGNORECASE)), ""
    )


@dataclass(frozen=True)
class ClusterLimits:
    """The settings of a cluster that decide how a run may be submitted and how long it may save.

    Times in seconds.
    """

    max_array: int
    kill_wait: int
    grace: int
    preempt_mode: str  # what becomes of a preempted job: REQUEUE, CANCEL, OFF …
    signals_all: bool  # every process of a job gets its signals, not only the task
    accounting: bool
    min_age: int
    requeues: bool

    @property
    def seconds_to_save(self) -> int:
        """Seconds from the first signal of a preemption to SIGKILL."""
        return self.grace + self.kill_wait


def read_limits(partition: str | None = None) -> ClusterLimits:
    """Read the limits of the cluster, and of the partition that jobs would use."""
    config = read_config()
    partition_record = show("partition", partition) if partition else {}

    def number(text: str, usual: int) -> int:
        match = _NUMBER.search(text)
        return int(match[0]) if match else usual

    mode = partition_record.get("PreemptMode") or config.get("PreemptMode", "OFF")
    return ClusterLimits(
        max_array=number(config.get("MaxArraySize", ""), 1001),
        kill_wait=number(config.get("KillWait", ""), 30),
        grace=parse_duration(partition_record.get("GraceTime", ""))
        or number(partition_record.get("GraceTime", ""), 0),
        preempt_mode=(
            mode
            if config.get("PreemptType", "").strip("()") not in ("null", "preempt/none")
            else "OFF"
        ),
        signals_all="cgroup" not in config.get("ProctrackType", ""),
        accounting="slurmdbd" in config.get("AccountingStorageType", ""),
        min_age=number(config.get("MinJobAge", ""), 300),
        requeues=config.get("JobRequeue", "1") == "1",
    )


def submit_limit(
    account: str | None = None, qos: str | None = None, partition: str | None = None
) -> int | None:
    """Return how many jobs the user may have at a time; None if unlimited or unknown.

    The least of the limits of the user in this account (by default the default one), of the
    accounts above it, and of the quality of service of the job and of the partition.
    """
    if shutil.which("sacctmgr") is None:
        return None
    cluster = read_config().get("ClusterName", "")
    try:
        name = account or _ask("user", user(), "DefaultAccount")[0][0]
        limits: list[str] = []
        for depth in range(16):
            rows = _ask(
                "assoc",
                f"account={name}",
                "User,ParentName,MaxSubmit,GrpSubmit,DefaultQOS",
                *([f"cluster={cluster}"] if cluster else []),
            )
            for who, _, each, group, default in rows:
                if who == user() and depth == 0:
                    limits += [each, group]
                    qos = qos or default
                elif not who:
                    limits.append(group)
            name = next((row[1] for row in rows if not row[0]), "")
            if not name:
                break
        for quality in {qos, show("partition", partition).get("QoS") if partition else None}:
            if quality and quality != "N/A":
                limits += sum(_ask("qos", quality, "MaxSubmitPU,MaxSubmitPA,GrpSubmit"), [])
    except (LaunchError, IndexError, ValueError):
        return None
    return min((int(limit) for limit in limits if limit.isdecimal()), default=None)


def _ask(kind: str, name: str, fields: str, *where: str) -> list[list[str]]:
    """Return the rows of `sacctmgr show KIND NAME`, with these fields."""
    text = run_command(
        *("sacctmgr", "--noheader", "--parsable2", "show", kind, name, *where),
        f"format={fields}",
        timeout=20,
    )
    return [line.split("|") for line in text.splitlines()]
