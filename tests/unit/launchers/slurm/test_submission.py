"""What sbatch and scancel are called with, by fakes that note every word."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from distgan.core.errors import ConfigError, LaunchError
from distgan.launchers.slurm import client, limits, snapshot, submission
from distgan.launchers.slurm.ledger import Ledger
from distgan.launchers.slurm.profiles import Resources
from distgan.launchers.slurm.submission import RunSpec, parameters, submit

CONFIG = "MaxArraySize = 10\nProctrackType = proctrack/linuxproc\n"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    fake = FakeSlurm(tmp_path, monkeypatch)
    fake.answers("scontrol", CONFIG)
    fake.answers("sbatch", "Submitted batch job 4217\n", keep=1)
    before = os.umask(0o002)  # as in a folder of a group
    yield fake
    os.umask(before)


def elements(tmp_path: Path, count: int) -> list[list[RunSpec]]:
    return [
        [RunSpec(str(tmp_path / "runs" / f"r{k}"), ("sagan", f"seed={k}"))] for k in range(count)
    ]


def test_one_run_is_a_plain_job(slurm, tmp_path):
    resources = Resources(time="90m", cpus=3, mem_gb=2, partition="long")
    one = submit(tmp_path / "runs", elements(tmp_path, 1), resources, cwd=str(tmp_path))
    assert (one.job, one.array) == ("4217", False)
    ((name, script),) = slurm.calls("sbatch")
    folder = tmp_path / "runs" / "_slurm" / one.id
    assert Path(script).parent == folder
    options = {line for line in slurm.kept.splitlines() if line.startswith("#SBATCH")}
    logs = {f"#SBATCH --{name}={folder}/%j_0_log.{name[:3]}" for name in ("output", "error")}
    assert options == logs | {
        "#SBATCH --open-mode=append",
        f"#SBATCH --job-name={one.name}",
        "#SBATCH --time=90",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --cpus-per-task=3",
        "#SBATCH --mem=2048MB",
        "#SBATCH --partition=long",
        "#SBATCH --requeue",
        f"#SBATCH --chdir={tmp_path}",
        "#SBATCH --signal=USR2@90",
    }
    assert "srun --unbuffered" in slurm.kept and "--kill-on-bad-exit=1" in slurm.kept
    assert sys.executable in slurm.kept
    asked = json.loads((folder / "submission.json").read_text())
    assert asked["elements"] == [
        [{"folder": str(tmp_path / "runs" / "r0"), "words": ["sagan", "seed=0"]}]
    ]
    assert asked["signals_all"] and asked["resources"]["mem_gb"] == 2
    with open(folder / "job.pkl", "rb") as file:  # written by this test
        job = pickle.load(file).function  # noqa: S301
    assert job.folder == str(folder)
    code = (tmp_path / "runs" / "r0" / "code").resolve()
    check, started = snapshot.check(code, folder), slurm.kept.index("srun --unbuffered")
    assert (code / "distgan").is_dir() and slurm.kept.index(check) < started
    assert not [path for path in (folder, *folder.iterdir()) if path.stat().st_mode & 0o022]
    ((again,), cancelled) = Ledger(tmp_path / "runs").read()
    assert (again.job, again.array, again.void, cancelled) == ("4217", False, None, set())


def test_several_are_one_array(slurm, tmp_path):
    one = submit(tmp_path / "runs", elements(tmp_path, 3), Resources(max_parallel=2), "after:9")
    assert len(slurm.calls("sbatch")) == 1 and one.array and one.key(2) == "4217_2"
    assert "#SBATCH --array=0-2%2" in slurm.kept
    assert "#SBATCH --dependency=after:9" in slurm.kept
    assert "#SBATCH --kill-on-invalid-dep=yes" in slurm.kept


def test_a_refusal_is_slurms_words_and_nothing_is_queued(slurm, tmp_path):
    why = "sbatch: error: invalid partition specified: nope" + " and more" * 60
    slurm.answers("sbatch", error=why, code=1)
    slurm.answers("squeue")
    with pytest.raises(
        LaunchError, match="(?s)refused the job: .*invalid partition specified: nope"
    ):
        submit(tmp_path / "runs", elements(tmp_path, 1), Resources(partition="nope"))
    ((one,), _) = Ledger(tmp_path / "runs").read()
    assert one.void and one.job is None
    noted = json.loads(Ledger(tmp_path / "runs").path.read_text().splitlines()[-1])["why"]
    assert len(noted) == 300 and noted.startswith("sbatch refused the job: ")


def test_a_refused_job_that_slurm_remembers_is_no_job(slurm, tmp_path, monkeypatch):
    """Slurm keeps a record FAILED of a job with a node configuration that it does not have."""
    usual = Ledger.begin

    def begin(self, *args, **about):
        one = usual(self, *args, **about)
        slurm.answers("squeue", f"105|FAILED|BadConstraints|{one.name}||1:00|N/A|me\n")
        return one

    monkeypatch.setattr(Ledger, "begin", begin)
    words = (
        "sbatch: error: Batch job submission failed: Requested node configuration is not available"
    )
    slurm.answers("sbatch", error=words, code=1)
    with pytest.raises(LaunchError, match="(?s)refused the job: Batch job .*sinfo -o.*--cpus"):
        submit(tmp_path / "runs", elements(tmp_path, 1), Resources(cpus=8))
    ((one,), _) = Ledger(tmp_path / "runs").read()
    assert one.job is None and "not available" in one.void


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_that_was_lost_is_looked_up(known, slurm, tmp_path, monkeypatch):
    """sbatch failed, and the job may be queued all the same: its name says so."""
    names = []
    usual = Ledger.begin

    def begin(self, *args, **about):
        one = usual(self, *args, **about)
        names.append(one.name)
        row = f"88_0|PENDING|None|{one.name}||1:00||me\n9|PENDING|None|other||1:00||me\n"
        slurm.answers("squeue", row) if known else slurm.answers("squeue", error="down", code=1)
        return one

    monkeypatch.setattr(Ledger, "begin", begin)
    slurm.answers("sbatch", error="Socket timed out", code=1)
    if known:
        one = submit(tmp_path / "runs", elements(tmp_path, 2), Resources())
        assert (one.job, one.key(1), one.void) == ("88", "88_1", None)
    else:
        with pytest.raises(LaunchError, match="unknown whether Slurm has accepted the job"):
            submit(tmp_path / "runs", elements(tmp_path, 1), Resources())
        ((one,), _) = Ledger(tmp_path / "runs").read()
        assert one.job is None and not one.void


def test_every_job_is_cancelled_by_name(slurm):
    slurm.answers("scancel")
    client.cancel(["12_3", "7"])
    assert slurm.calls("scancel") == [["scancel", "12_3", "7"]]
    client.cancel([])
    keys = [str(k) for k in range(1001)]
    client.cancel(keys)
    words = [call[1:] for call in slurm.calls("scancel")[1:]]
    assert [len(part) for part in words] == [500, 500, 1] and sum(words, []) == keys


def test_a_bare_scancel_is_never_run(slurm):
    """It would be refused by some versions, and by others cancel what a filter says."""
    slurm.answers("scancel")
    client.cancel(["1"])
    assert all(len(call) > 1 for call in slurm.calls("scancel"))


def test_limits_are_those_of_the_cluster_and_the_partition(slurm):
    config = {
        "MaxArraySize": "10",
        "KillWait": "45 sec",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "ProctrackType": "proctrack/cgroup",
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "MinJobAge": "120 sec",
        "JobRequeue": "0",
    }
    partition = "PartitionName=long GraceTime=00:01:10 PreemptMode=CANCEL"
    slurm.answers("scontrol", "\n".join([partition, *map(" = ".join, config.items())]))
    found = limits.read_limits("long")
    assert (found.max_array, found.min_age) == (10, 120)
    assert (found.preempt_mode, found.grace, found.seconds_to_save) == ("CANCEL", 70, 115)
    assert not found.signals_all and found.accounting and not found.requeues
    assert ["scontrol", "--oneliner", "show", "partition", "long"] in slurm.calls("scontrol")
    assert limits.read_limits(None).preempt_mode == "REQUEUE"


@pytest.mark.parametrize(
    ("account", "qos", "limit"), [(None, None, 3), ("big", None, 40), ("big", "day", 30)]
)
def test_the_submit_limit_is_the_least_of_account_parents_and_qos(
    account, qos, limit, slurm, tmp_path
):
    """The default account's, not another's; of the accounts above it; of the quality of service."""
    slurm.answers("scontrol", "ClusterName = c\n")
    me = client.user()
    slurm.reply(
        "sacctmgr",
        {
            f"user {me}": "lab",
            "account=lab": f"|top|||\n{me}||200||normal\nother||1||normal",
            "account=big": f"|top|||\n{me}||40||long",
            "account=top": "|root||90|",
            "account=root": "||||",
            "qos normal": "3||",
            "qos long": "||",
            "qos day": "|30|1000",
        },
    )
    assert limits.submit_limit(account, qos) == limit
    slurm.answers("sacctmgr", "")
    assert limits.submit_limit(account, qos) is None


def test_what_sbatch_is_told(tmp_path):
    resources = Resources(
        gpus=4,
        nodes=2,
        cpus=8,
        mem_gb=64,
        max_parallel=3,
        partition="p",
        sbatch={"exclusive": True},
    )
    found = parameters(tmp_path, "n", 7, resources)
    assert (
        found["gpus_per_node"] == 4
        and found["nodes"] == 2
        and found["ntasks_per_node"] == 1
        and found["cpus_per_task"] == 32
        and found["array_parallelism"] == 3
    )
    assert (
        "--kill-on-bad-exit=1" in found["srun_args"]
        and "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}_submitted.pkl" in found["setup"][-1]
    )
    assert found["additional_parameters"] == {"requeue": True, "exclusive": True}
    odd = parameters(Path("/a folder/$(touch x)"), "n", 1, resources)["setup"][-1]
    assert "'/a folder/$(touch x)'/" in odd  # quoted: nothing of a path is run


def sent(slurm, tmp_path, resources, monkeypatch, **shell):
    """What sbatch gets: its script, and the SBATCH_ variables."""
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    seen = tmp_path / "seen"
    path = slurm.folder / "sbatch"
    path.write_text(path.read_text().replace("#!/bin/sh", f"#!/bin/sh\nenv > {seen}"))
    submit(tmp_path / "runs", elements(tmp_path, 1), resources)
    variables = dict(line.partition("=")[::2] for line in seen.read_text().splitlines())
    return slurm.kept, {name for name in variables if name.startswith("SBATCH_")}


def test_what_is_printed_is_what_is_requested(slurm, tmp_path, monkeypatch):
    """sbatch ranks SBATCH_ variables above the lines of a script; what adds to them stays."""
    shell = {"SBATCH_PARTITION": "urgent", "SBATCH_TIMELIMIT": "5", "SBATCH_GPUS": "8"}
    shell |= {"SBATCH_MEM_PER_CPU": "1G", "SBATCH_RESERVATION": "class", "SBATCH_NO_REQUEUE": "1"}
    shell |= {"SBATCH_JOB_NAME": "mine", "SBATCH_EXPORT": "NONE", "SBATCH_GRES": "nvme:1"}
    resources = Resources(partition="main", time="1h", mem_gb=1)
    script, variables = sent(slurm, tmp_path, resources, monkeypatch, **shell)
    assert variables == {"SBATCH_RESERVATION", "SBATCH_EXPORT", "SBATCH_GRES"}
    assert "--partition=main" in script and "--time=60" in script
    resources = resources.model_copy(update={"sbatch": {"reservation": "own"}})
    script, variables = sent(slurm, tmp_path, resources, monkeypatch)
    assert "SBATCH_RESERVATION" not in variables and "--reservation=own" in script
    monkeypatch.setenv("SBATCH_CLUSTERS", "other")
    with pytest.raises(LaunchError, match="export SLURM_CLUSTERS=other"):
        submit(tmp_path / "runs", elements(tmp_path, 1), resources)


def test_a_job_without_the_shells_environment_imports_the_copy(slurm, tmp_path, monkeypatch):
    """--export=NONE: the script sets what the job needs, and srun passes it on."""
    resources = Resources(sbatch={"export": "NONE"}, gpus=2, gpu_type="a100")
    script, _ = sent(slurm, tmp_path, resources, monkeypatch)
    code = (tmp_path / "runs" / "r0" / "code").resolve()
    assert f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}" in script
    assert "--export=NONE" in script and "srun --unbuffered" in script
    assert "--export=ALL" in script.partition("srun --unbuffered")[2]
    assert "#SBATCH --gpus-per-node=a100:2" in script


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("true", "export A=1"), None),
        (("module load cuda",), "error: setup: exit code 127 of: module load cuda"),
        (("if true; then", "  false", "fi"), "error: setup: exit code 1 of: if true; then"),
        (("if true; then", "  true", "fi"), None),
        (("false || true",), None),
    ],
)
def test_a_line_of_setup_that_fails_ends_the_job_with_its_text(lines, said):
    script = "\n".join([*submission.checked_setup(lines), "echo began"])
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (result.stdout == "began\n") == (said is None) == (result.returncode == 0)
    assert said is None or said in result.stderr
    with pytest.raises(ConfigError, match="the shell cannot read these lines"):
        submission.checked_setup(("if true; then",))
