"""The ways in which a job can fail before its first step, one row each: what Slurm, the node or the
program that fails prints, the cause that `distgan why` names, and a part of the remedy.

In all of them the run is not submitted a second time by the same line.
"""

import json
import re
from dataclasses import asdict

import pytest
from fake_slurm import FakeSlurm

from distgan.config.sections import Machine
from distgan.core.errors import LaunchError
from distgan.distributed.environment import require_gpus
from distgan.launchers.commands import logs, status, why
from distgan.launchers.runs.selection import SelectedRun, select
from distgan.launchers.slurm import limits
from distgan.launchers.slurm.ledger import Ledger
from distgan.launchers.slurm.profiles import Resources
from distgan.launchers.slurm.restart_policy import EndOfAttempt, decide
from distgan.launchers.slurm.submission import RunSpec, submit

SCRIPT = "/var/spool/slurmd/job00103/slurm_script: line"
FAILED = "sbatch: error: Batch job submission failed: "

# sbatch's words, a part of the remedy
REFUSED = {
    "no such partition": (
        "sbatch: error: invalid partition specified: gpuu\n"
        f"{FAILED}Invalid partition name specified",
        "`sinfo` lists the partitions",
    ),
    "no such account": (
        f"{FAILED}Invalid account or account/partition combination specified",
        "--account NAME",
    ),
    "no such quality of service": (f"{FAILED}Invalid qos specification", "--set qos=NAME"),
    "limit of jobs": (
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
        f"{FAILED}Job violates accounting/QOS policy (job submit limit, user's size and/or time"
        " limits)",
        "the limit of jobs is reached: run the same line again",
    ),
    "time limit of the partition": (
        f"{FAILED}Requested time limit is invalid (missing or exceeds some limit)",
        "give a shorter --time",
    ),
    "type of GPU that is not there": (
        f"{FAILED}Invalid generic resource (gres) specification",
        "--gpus TYPE:N",
    ),
    "more processors than a node has": (
        "sbatch: error: CPU count per node can not be satisfied\n"
        f"{FAILED}Requested node configuration is not available",
        "give less of --cpus, --gpus",
    ),
    "constraint that nobody has": (f"{FAILED}Invalid feature specification", "constraint"),
    "node that does not exist": (f"{FAILED}Invalid node name specified", "nodelist"),
    "partition of another group": (
        f"{FAILED}User's group not permitted to use this partition",
        "may not use that partition",
    ),
    "controller's disk is full": (
        f"{FAILED}I/O error writing script/output to file",
        "only its administrators",
    ),
    "wckey required": (f"{FAILED}Invalid wckey specification", "sbatch={wckey: NAME}"),
}

# what the job's own log says, the cause, a part of the remedy
LOGS = {
    "Python is not on the node": (
        "slurmstepd: error: execve(): /local/venv/bin/python: No such file or directory\n"
        "srun: error: n1: task 0: Exited with exit code 2",
        "Python missing",
        "an environment on a file system that all nodes see",
    ),
    "Python is not on the node, by the script": (
        f"{SCRIPT} 21: /local/venv/bin/python3.11: No such file or directory",
        "Python missing",
        "distgan doctor --slurm",
    ),
    "Python may not be executed": (
        "slurmstepd: error: execve(): /shared/venv/bin/python: Permission denied",
        "Python not executable",
        "an environment that the nodes may execute",
    ),
    "wrong environment": (
        "/usr/bin/python: Error while finding module specification for 'submitit.core._submit'"
        " (ModuleNotFoundError: No module named 'submitit')",
        "wrong environment",
        "PYTHONPATH, conda, module",
    ),
    "module command missing": (
        f"{SCRIPT} 14: module: command not found\nerror: setup: exit code 127 of: module load cuda",
        "module missing",
        "source /etc/profile.d/modules.sh",
    ),
    "module unknown (Lmod)": (
        "Lmod has detected the following error: The following module(s) are unknown:\n"
        '"cuda/99"\nerror: setup: exit code 1 of: module load cuda/99',
        "module missing",
        "`module avail`",
    ),
    "module unknown (Tcl)": (
        "ModuleCmd_Load.c(213):ERROR:105: Unable to locate a modulefile for 'cuda/99'\n"
        "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
        "module missing",
        "mend the profile's setup",
    ),
    "conda missing": (
        f"{SCRIPT} 14: conda: command not found\nerror: setup: exit code 127 of: conda activate g",
        "conda missing",
        "--set 'setup=[]'",
    ),
    "conda not initialised": (
        "CondaError: Run 'conda init' before 'conda activate'\n"
        "error: setup: exit code 1 of: conda activate gan",
        "conda missing",
        "source …/etc/profile.d/conda.sh",
    ),
    "conda environment missing": (
        "EnvironmentNameNotFound: Could not find conda environment: gan",
        "conda missing",
        "a job runs the Python that submitted it",
    ),
    "another line of setup": (
        f"{SCRIPT} 9: /home/me/gan/env.sh: No such file or directory\n"
        "error: setup: exit code 1 of: source /home/me/gan/env.sh",
        "setup failed",
        "mend the profile",
    ),
    "container": (
        "slurmstepd: error: pyxis: container start failed with error code: 1\n"
        "slurmstepd: error: pyxis: failed to import docker image",
        "container",
        "whether the node sees the image",
    ),
    "container program missing": (
        f"{SCRIPT} 14: apptainer: command not found",
        "container",
        "has the program",
    ),
    "library missing": (
        "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
        "library missing",
        "load it in the profile's setup",
    ),
    "older C library": (
        "ImportError: /lib64/libc.so.6: version `GLIBC_2.34' not found (required by /v/_C.so)",
        "library missing",
        "older there",
    ),
    "home not mounted": (
        "slurmstepd: error: couldn't chdir to `/home/me': No such file or directory: going to /tmp"
        " instead",
        "folder not mounted",
        "exclude=NODE",
    ),
    "network file system gone": (
        "OSError: [Errno 116] Stale file handle: '/shared/runs'",
        "folder not mounted",
        "exclude=NODE",
    ),
    "disk of the node full": (
        "slurmstepd: error: write to /tmp/slurmd/job103/slurm_script: No space left on device",
        "disk full",
        "`distgan gc`",
    ),
    "quota": (
        "OSError: [Errno 122] Disk quota exceeded: '/shared/runs/e/r0/attempts'",
        "disk full",
        "make room",
    ),
    "read-only": (
        "OSError: [Errno 30] Read-only file system: '/shared/runs/e/r0'",
        "read-only",
        "machine.runs that nodes may write",
    ),
    "no write permission": (
        "PermissionError: [Errno 13] Permission denied: '/shared/runs/e/r0/attempts'",
        "no permission",
        "umask 002",
    ),
    "node went down": (
        "srun: error: Node failure on n2\nsrun: Job step aborted: Waiting up to 32 seconds",
        "node failure",
        "--set exclude=n2",
    ),
    "step was not started": (
        "srun: error: Task launch for StepId=103.0 failed on node n3: Communication connection"
        " failure\nsrun: error: Application launch failed: Communication connection failure",
        "node failure",
        "--set exclude=n3",
    ),
    "clock of the node": (
        "slurmstepd: error: Munge decode failed: Expired credential\n"
        "srun: error: Task launch for StepId=103.0 failed on node n2: Invalid job credential",
        "node failure",
        "--set exclude=n2",
    ),
    "credential": (
        "slurmd: error: Munge decode failed: Rewound credential",
        "node not trusted",
        "tell the administrators",
    ),
    "submission on another disk": (
        "FileNotFoundError: [Errno 2] No such file or directory: '/scratch/runs/_slurm/ab/"
        "103_submitted.pkl'",
        "submission not readable",
        "the folder of runs one that all nodes see",
    ),
    "copy of the code was changed": (
        "/shared/runs/_code/0123456789abcdef does not hold what its name says",
        "code not trusted",
        "makes a new copy",
    ),
    "too few processes": (
        f"{SCRIPT} 30: fork: retry: Resource temporarily unavailable",
        "limits of the node",
        "ulimit -u",
    ),
    "old processor": ("Illegal instruction (core dumped)", "processor not supported", "constraint"),
    "killed for memory": (
        "slurmstepd: error: Detected 1 oom_kill event in StepId=103.0. Some of the step tasks have"
        " been OOM Killed.",
        "out of memory",
        "mem_gb",
    ),
    "prolog": (
        "slurmd: error: prolog failed: rc:256 output:mount: /scratch: special device missing",
        "launch failure",
        "tell the administrators",
    ),
    "environment of the shell missing": (
        "RuntimeError: Could not figure out which environment the job is runnning in.",
        "submission not readable",
        "distgan doctor --slurm",
    ),
}

# what the trainer's launcher printed, the cause, a part of the remedy
TRAINERS = {
    "module of one's own missing": (
        "ModuleNotFoundError: No module named 'librosa'",
        "import error",
        "install it in that environment",
    ),
    "driver too old": (
        "UserWarning: CUDA initialization: The NVIDIA driver on your system is too old (found"
        " version 11040). Please update your GPU driver\nerror: 1 GPUs were requested on each node,"
        " and torch sees 0 on n1",
        "CUDA driver too old",
        "nvidia-smi",
    ),
    "GPU missing": (
        "error: 2 GPUs were requested on each node, and torch sees 1 on n1: a broken node",
        "GPU missing",
        "exclude=n1",
    ),
    "GPU not supported": (
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        "GPU not supported",
        "gpus=TYPE:N",
    ),
    "name does not resolve": (
        "[W socket.cpp:601] [c10d] The IPv6 network addresses of (n1, 29500) cannot be retrieved"
        " (gai error: -2 - Name or service not known).",
        "name does not resolve",
        "distgan doctor --slurm",
    ),
    "nodes do not reach each other": (
        "torch.distributed.DistNetworkError: The client socket has timed out after 600000ms while"
        " trying to connect to (10.0.0.1, 20311).",
        "nodes do not reach each other",
        "NCCL_SOCKET_IFNAME",
    ),
    "settings that do not fit": ("error: batch must be at least 4", "refused", "fix it"),
}

# squeue's state and reason, the state here, a part of the remedy
WAITS = {
    "launch failed": ("PENDING", "launch failed requeued held", "held", "scontrol release 103_0"),
    "requeued and held": ("PENDING", "job requeued in held state", "held", "scontrol release"),
    "held by its user": ("PENDING", "JobHeldUser", "held", "scontrol release 103_0"),
    "held by Slurm": ("PENDING", "JobHeldAdmin", "held", "only administrators"),
    "node reserved or down": (
        "PENDING",
        "ReqNodeNotAvail, UnavailableNodes:n[1-2]",
        "queued",
        "`sinfo -R`",
    ),
    "budget used up": ("PENDING", "AssocGrpGRESMinutes", "queued", "another --account"),
    "limit of the quality of service": ("PENDING", "QOSMaxJobsPerUserLimit", "queued", "status"),
    "time of the partition": ("PENDING", "PartitionTimeLimit", "queued", "shorter --time"),
    "account no longer allowed": ("PENDING", "AccountNotAllowed", "queued", "another --account"),
    "begins later": ("PENDING", "BeginTime", "queued", "distgan status --watch"),
    "its source has failed": ("PENDING", "DependencyNeverSatisfied", "failed", "retry"),
    "node down at its start": ("NODE_FAIL", "None", "failed", "distgan retry"),
    "node did not boot": ("BOOT_FAIL", "None", "failed", "distgan retry"),
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Without sacct; squeue has forgotten every job."""
    fake = FakeSlurm(tmp_path, monkeypatch)
    fake.answers("scontrol", "MaxArraySize = 10\n")
    fake.answers("squeue")
    return fake


def begun(home, run="r0"):
    """A submitted run, and the folder of its job's logs."""
    ledger, folder = Ledger(home), home / "e" / run
    folder.mkdir(parents=True)
    entry = ledger.begin([[str(folder)], [str(folder) + "x"]])
    ledger.submitted(entry, "103", True)
    (home / "_slurm" / entry.id).mkdir()
    return folder, home / "_slurm" / entry.id


def only(home) -> SelectedRun:
    (run,) = select(home, ["r0"])
    return run


def says(home, capsys) -> str:
    capsys.readouterr()
    assert why.main(["r0", "--runs", str(home)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("case", REFUSED)
def test_what_sbatch_refuses(case, slurm, tmp_path, capsys):
    words, remedy = REFUSED[case]
    home = (tmp_path / "runs").resolve()
    slurm.answers("sbatch", error=words, code=1)
    with pytest.raises(LaunchError) as refused:
        submit(home, [[RunSpec(str(home / "e" / "r0"), ("sagan",))]], Resources())
    assert (
        str(refused.value).startswith("sbatch refused the job: ") and remedy in f"{refused.value}"
    )
    assert words.rpartition("failed: ")[2] in str(refused.value)
    assert len(slurm.calls("sbatch")) == 1 and Ledger(home).last_submissions() == {}
    said = says(home, capsys)
    assert "cause     refused by Slurm" in said and remedy in said


@pytest.mark.parametrize("case", LOGS)
def test_what_the_jobs_own_log_shows(case, slurm, tmp_path, capsys):
    log, cause, remedy = LOGS[case]
    home = (tmp_path / "runs").resolve()
    _, folder = begun(home)
    (folder / "103_0_0_log.err").write_text(log + "\n")
    run = only(home)
    assert run.state.name == "failed" and not run.state.missing
    assert "its job ended before the training began: " in run.state.why
    said = says(home, capsys)
    assert re.search(f"cause     ({cause}):", said) and remedy in said, said
    assert logs.main(["r0", "--runs", str(home)]) == 0
    assert log.splitlines()[0] in capsys.readouterr().out


@pytest.mark.parametrize("case", TRAINERS)
def test_what_the_trainer_printed_before_its_first_step(case, slurm, tmp_path, capsys):
    log, cause, remedy = TRAINERS[case]
    home = (tmp_path / "runs").resolve()
    run, folder = begun(home)
    decision = decide(EndOfAttempt(False, None, None, 1, (), log), [], Resources())
    assert decision.action == "fail"
    (run / "attempts/000").mkdir(parents=True)
    record = {"submission": folder.name, "job": "103_0", "started": 1.0, "ended": 2.0}
    record |= {
        "nodes": "n1",
        "host": "n1",
        "then": decision.action,
        **{k: asdict(decision)[k] for k in ("kind", "cause")},
    }
    (run / "attempts/000/job.json").write_text(json.dumps(record))
    (run / "attempts/000/launcher.log").write_text(log + "\n")
    (run / "NO_RESTART").write_text(decision.cause + "\n")
    assert only(home).state.name == "failed" and not only(home).state.missing
    said = says(home, capsys)
    assert re.search(f"cause     ({cause}):", said) and remedy in said, said


@pytest.mark.parametrize("case", WAITS)
def test_what_squeue_shows(case, slurm, tmp_path, capsys):
    state, reason, name, remedy = WAITS[case]
    home = (tmp_path / "runs").resolve()
    begun(home)
    slurm.answers("squeue", f"103_0|{state}|{reason}|x|n1|1:00|N/A|me\n")
    run = only(home)
    assert run.state.name == name and not run.state.missing
    assert remedy in says(home, capsys)
    assert status.exit_code([run]) == (3 if name == "queued" else 2)  # a watch ends


def test_a_port_that_is_taken_is_tried_again_by_the_job_itself():
    end = EndOfAttempt(False, None, None, 1, (), "DistNetworkError: EADDRINUSE")
    assert decide(end, [], Resources()).action == "requeue"
    earlier = [{"kind": "crash"}] * 2
    assert decide(end, earlier, Resources()).action == "fail"


def test_gpus_that_the_node_lacks_end_the_job(monkeypatch):
    monkeypatch.setenv("DISTGAN_GPUS", "2")
    require_gpus(Machine(), 2)
    require_gpus(Machine(device="cpu"), 0)
    with pytest.raises(LaunchError, match="2 GPUs were requested on each node, and torch sees 0"):
        require_gpus(Machine(), 0)
    monkeypatch.delenv("DISTGAN_GPUS")
    require_gpus(Machine(), 0)


def test_without_any_sign_a_person_is_asked(slurm, tmp_path, capsys):
    home = (tmp_path / "runs").resolve()
    begun(home)
    assert only(home).state.name == "unknown" and not only(home).state.missing
    said = says(home, capsys)
    assert "cause     unknown" in said and "distgan retry r0" in said
    assert limits.remedy("words that nobody knows") == ""
