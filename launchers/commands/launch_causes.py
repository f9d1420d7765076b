"""Recognise why a job ended before its first step, and why it waits: from its own log, from Slurm's
reasons and from what sbatch said.
"""

import re

from distgan.launchers.commands.causes import LINES, Cause

_AGAIN = "then: distgan retry TARGET"
_DOCTOR = "distgan doctor --slurm tests that by a job of the same kind; " + _AGAIN

# What a job printed -> (cause, meaning, what to do). The first that fits is it: the more telling
# stand above.
SIGNS: tuple[tuple[str, str, str, str], ...] = (
    (
        r"module: (command )?not found|Lmod has detected|Unable to locate a modulefile"
        r"|ModuleCmd_Load|module\(s\) (are|is) unknown",
        "module missing",
        "a `module load` of the profile's setup failed on the node",
        "`module avail` on a node lists the modules; where `module` itself is missing, begin setup"
        " with `source /etc/profile.d/modules.sh`; mend the profile's setup, "
        "then: distgan retry TARGET --set 'setup=[…]'",
    ),
    (
        r"conda: command not found|mamba: command not found|CondaError|EnvironmentNameNotFound"
        r"|EnvironmentLocationNotFound|conda init",
        "conda missing",
        "conda, or the environment that the profile's setup activates, is not there in a job",
        "leave it out: a job runs the Python that submitted it; or begin setup with `source"
        " …/etc/profile.d/conda.sh`. Then: distgan retry TARGET --set 'setup=[]'",
    ),
    (
        r"(pyxis|enroot)\S*: .*(error|fail)|enroot-\w+|FATAL:\s+.*(container|image|\.sif)"
        r"|(apptainer|singularity|enroot): (command )?not found",
        "container",
        "the container that the profile names could not be started on the node",
        "look whether the node sees the image and has the program; mend the profile, " + _AGAIN,
    ),
    (
        r"NVIDIA driver on your system is too old|CUDA driver version is insufficient"
        r"|forward compatibility was attempted",
        "CUDA driver too old",
        "the node's driver is older than the CUDA that torch was built for",
        "a torch for that driver (`nvidia-smi` on the node prints the version that it knows), or"
        " other nodes: distgan retry TARGET --set exclude=NODE",
    ),
    (
        r"no kernel image is available|is not compatible with the current PyTorch installation",
        "GPU not supported",
        "torch was not built for this type of GPU",
        "a torch for it, or another type: distgan retry TARGET --set gpus=TYPE:N",
    ),
    (
        r"GPUs were requested on each node, and torch sees|no CUDA-capable device"
        r"|NVML: |Unable to determine the device handle",
        "GPU missing",
        "the node does not have the GPUs that were requested, or torch cannot use them",
        "what `nvidia-smi` prints on the node says which; other nodes: distgan retry TARGET --set"
        " exclude=NODE",
    ),
    (
        r"Illegal instruction",
        "processor not supported",
        "the node's processors lack instructions that the installed packages use",
        "other nodes: distgan retry TARGET --set exclude=NODE, or --set constraint=FEATURE",
    ),
    (
        r"GLIBC\S* not found|GLIBCXX\S* not found|cannot open shared object file",
        "library missing",
        "a shared library that the job's Python needs is not on the node, or older there",
        "load it in the profile's setup, or install the packages on a node of this kind; "
        + _DOCTOR,
    ),
    (
        r"(execve\(\): |line \d+: |exec: )\S*python\S*: (No such file|not found|Not a directory)"
        r"|bad interpreter",
        "Python missing",
        "the node does not have the Python that submitted the job: an environment on a disk of the"
        " login node, or one that was moved or removed",
        "submit from an environment on a file system that all nodes see; " + _DOCTOR,
    ),
    (
        r"(execve\(\): |line \d+: |exec: )\S*python\S*: Permission denied",
        "Python not executable",
        "the node may not execute the Python that submitted the job (its rights, or a file system"
        " that is mounted noexec)",
        "submit from an environment that the nodes may execute; " + _DOCTOR,
    ),
    (
        r"No module named '?(distgan|submitit|torch|accelerate|pydantic|numpy|yaml)\b",
        "wrong environment",
        "the job's Python lacks a package that distgan needs: another environment than the one"
        " that distgan is installed in",
        "look at what the profile's setup loads or activates (PYTHONPATH, conda, module); "
        + _DOCTOR,
    ),
    (
        r"error: setup: exit code",
        "setup failed",
        "a line of the profile's setup failed on the node",
        "mend the profile, or write `… || true` where it may fail; then: distgan retry TARGET --set"
        " 'setup=[…]'",
    ),
    (
        r"(?i:chdir)\S* to .*(No such file|Permission denied|Stale|failed)|HOME .*not set"
        r"|Could not determine home directory|Transport endpoint is not connected"
        r"|Stale (NFS )?file handle",
        "folder not mounted",
        "the node does not see the working directory or the home: a file system is not mounted",
        "other nodes: distgan retry TARGET --set exclude=NODE, and tell the administrators",
    ),
    (
        r"No space left on device|Disk quota exceeded",
        "disk full",
        "a disk was full before the training began: that of the runs, or the node's own (/tmp, the"
        " folder of Slurm's daemon)",
        "make room (`df -h`, `distgan gc`), or leave the node out: distgan retry TARGET --set"
        " exclude=NODE",
    ),
    (
        r"Read-only file system",
        "read-only",
        "a file system is mounted for reading alone on the node",
        "choose a machine.runs that nodes may write, or leave the node out: distgan retry TARGET"
        " --set exclude=NODE",
    ),
    (
        r"Permission denied|Operation not permitted",
        "no permission",
        "the job may not read or write a file that it needs",
        "`ls -ld` on the file in the evidence, and `id` in a job; where several people share the"
        " runs: umask 002 and chmod g+s; " + _AGAIN,
    ),
    (
        r"Name or service not known|Temporary failure in name resolution|gaierror"
        r"|No address associated with hostname|gai error",
        "name does not resolve",
        "a node cannot find another one by its name",
        "other nodes: distgan retry TARGET --set exclude=NODE; `distgan doctor --slurm` shows"
        " whether names resolve",
    ),
    (
        r"EADDRINUSE|Address already in use",
        "port in use",
        "another program has taken the port",
        "distgan retry TARGET, which takes another one",
    ),
    (
        r"client socket has timed out|RendezvousTimeout|No route to host|Network is unreachable"
        r"|the first node has not written",
        "nodes do not reach each other",
        "the processes could not connect to the first node: a firewall, or nodes on other networks",
        "one node (--nodes 1), or NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME=INTERFACE in the"
        " profile's setup; " + _AGAIN,
    ),
    (
        r"Node failure on|Task launch for .* failed|Communication connection failure"
        r"|DUE TO NODE FAILURE|Unable to confirm allocation|step creation .*disabled"
        r"|Error connecting .* Connection refused",
        "node failure",
        "a node went down, or did not start the job's processes",
        "distgan retry TARGET --set exclude=NODE",
    ),
    (
        r"(?i:munge).*(expired|rewound|invalid|failed)|Invalid job credential"
        r"|Protocol authentication error",
        "node not trusted",
        "the node's clock or its key of munge differs from the controller's",
        "leave the node out: distgan retry TARGET --set exclude=NODE, and tell the administrators",
    ),
    (
        r"belongs to another user|is a link, or no file|may be written by other users"
        r"|does not hold what its name says|has a file ",
        "code not trusted",
        "the copy of the code that the job would run was changed, or others may change it",
        "the same line again makes a new copy: distgan retry TARGET",
    ),
    (
        r"_submitted\.pkl|job\.pkl|submission\.json|Could not figure out which environment",
        "submission not readable",
        "the job could not read the files that it was submitted with",
        "is the folder of runs one that all nodes see? " + _DOCTOR,
    ),
    (
        r"(?i:fork): .*Resource temporarily unavailable|can't start new thread"
        r"|Too many open files",
        "limits of the node",
        "the node allows this user too few processes or open files",
        "`ulimit -u 4096` or `ulimit -n 4096` in the profile's setup, or machine.workers=1; "
        + _AGAIN,
    ),
    (
        r"DUE TO TIME LIMIT",
        "time limit",
        "the time ended before the training began",
        "distgan retry TARGET --set time=…",
    ),
    (
        r"(?i:prolog).*(error|fail)|(error|fail).*(?i:prolog)",
        "launch failure",
        "a program of the site that runs before each job (prolog) failed on the node",
        "leave the node out: distgan retry TARGET --set exclude=NODE, and tell the administrators",
    ),
)

_RELEASE = "scontrol release JOB"
# Reasons of squeue -> (meaning, next command); the first that fits the beginning is it.
REASONS: tuple[tuple[str, str, str], ...] = (
    (
        r"launch[ _]failed",
        "Slurm could not start the job on its node, and holds it: a full disk, a missing home, a"
        " prolog that failed",
        f"{_RELEASE}; where it fails again: distgan cancel TARGET, then distgan retry TARGET --set"
        " exclude=NODE",
    ),
    (r".*requeued[ _]in[ _]held|.*requeued[ _]held", "it was queued again, and is held", _RELEASE),
    (
        r"JobHeldUser",
        "its user holds it (scontrol hold, or sbatch's hold)",
        _RELEASE,
    ),
    (
        r"JobHeldAdmin|BadConstraints",
        "Slurm or an administrator holds it: often since no node has all that it requests",
        f"`scontrol show job JOB`; {_RELEASE}, which only administrators may where they hold it;"
        " else distgan cancel TARGET, and submit with less",
    ),
    (r"Priority", "other jobs come first", ""),
    (r"Resources", "no node is free for it", ""),
    (r"JobArrayTaskLimit", "as many of the sweep run as may at a time (--max-parallel)", ""),
    (r"LocalPlaces", "as many run on this machine as may at a time (--parallel, --gpus)", ""),
    (
        r"BeginTime",
        "it is to begin later: `begin` of the profile, or the two minutes or so that Slurm lets a"
        " requeued job wait",
        "",
    ),
    (
        r"DependencyNeverSatisfied",
        "the run it grows from has failed",
        "distgan cancel TARGET, and retry that one",
    ),
    (r"Dependency", "it waits for another job", ""),
    (
        r"PartitionTimeLimit|QOSMaxWallDurationPerJob|AssocMaxWallDurationPerJob",
        "it requests more time than is allowed",
        "distgan cancel TARGET, then submit with a shorter --time",
    ),
    (
        r"PartitionNodeLimit|QOSMaxNode|QOSMaxGRES|QOSMaxCpuPerJob|QOSMaxCpuPerUser|AssocMax\w*PerJob",
        "it requests more than the partition or the quality of service allows",
        "distgan cancel TARGET, then submit with less; `sacctmgr show qos` lists the limits",
    ),
    (
        r"(QOS|Assoc)\w*Minutes|AssocGrpBilling",
        "the account's budget of hours is used up",
        "another --account, or wait: `sacctmgr show assoc user=$USER` lists yours",
    ),
    (
        r"QOS|Assoc|MaxJobs",
        "the user, the account or the quality of service has as many jobs or resources as it may",
        "",
    ),
    (
        r"ReqNodeNotAvail|NodeDown|Nodes required for job are DOWN|Reservation|PartitionDown"
        r"|PartitionInactive",
        "nodes are reserved or down",
        "`sinfo -R` shows why; wait, or distgan cancel TARGET and another --partition",
    ),
    (
        r"InvalidAccount|InvalidQOS|AccountNotAllowed|QOSNotAllowed",
        "the account or the quality of service may not use this partition (any more)",
        "distgan cancel TARGET, then submit with another --account or --set qos=NAME",
    ),
    (r"Licenses", "the cluster's licences are in use", ""),
    (r"JobLaunchFailure|RaisedSignal|NonZeroExitCode", "its last start failed", ""),
)


def match_launch(text: str) -> Cause | None:
    """Return the cause that the log of a job shows which ended before its first step."""
    for pattern, name, meaning, then in SIGNS:
        if lines := [line.strip() for line in text.splitlines() if re.search(pattern, line)]:
            nodes = re.search(
                r"(?:srun: error: |failed on node |failure on |error: )(\w[\w-]*\d)\b", lines[0]
            )
            evidence = tuple(dict.fromkeys(lines))[-LINES:]
            return Cause(name, meaning, then, evidence, nodes[1] if nodes else "")
    return None


def waiting(reason: str, key: str) -> tuple[str, str]:
    """Return (the meaning of squeue's reason, the next command; "" to wait)."""
    for pattern, meaning, then in REASONS:
        if re.match(pattern, reason):
            return meaning, re.sub("JOB", key, then)
    return "see REASON CODES in the manual of squeue", ""
