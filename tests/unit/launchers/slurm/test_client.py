"""The output of Slurm's commands is parsed, and queries are repeated while Slurm is busy."""

import time

import pytest
from fake_slurm import FakeSlurm

from distgan.core.errors import LaunchError
from distgan.launchers.slurm import client


def test_nothing_of_a_surrounding_job_is_inherited():
    assert client.clean_environment(
        {"SBATCH_ACCOUNT": "mine", "GROUP_HOME": "g", "SLURM_JWT": "t", "GROUP_RANK": "0"}
    ) == {"SBATCH_ACCOUNT": "mine", "GROUP_HOME": "g", "SLURM_JWT": "t"}
    before = {
        "SLURM_CONF": "c",
        "SLURM_JOB_ID": "1",
        "SBATCH_PARTITION": "x",
        "RANK": "0",
        "MASTER_ADDR": "a",
        "PATH": "p",
        "LOCAL_RANK": "0",
        "PMIX_RANK": "1",
        "HOME": "h",
    }
    assert client.clean_environment(before) == {"SLURM_CONF": "c", "PATH": "p", "HOME": "h"}


def test_times_and_moments_of_slurm():
    assert (
        client.parse_duration("1-02:03:04") == 93784
        and client.parse_duration("30:00") == 1800
        and client.parse_duration("UNLIMITED") is None
    )
    assert (
        client.parse_time("Unknown") is None
        and abs(client.parse_time(time.strftime("%Y-%m-%dT%H:%M:%S")) - time.time()) < 2
    )


def test_commands_that_fail_say_slurms_words(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SQUEUE_PARTITION", "urgent")  # which would hide jobs
    with pytest.raises(LaunchError, match="distgan dev-cluster up"):
        client.queue()
    (tmp_path / "squeue").write_text(
        '#!/bin/sh\necho "12_3|RUNNING|None|x|n1|1:00|$SQUEUE_PARTITION|me"\n'
    )
    (tmp_path / "squeue").chmod(0o755)
    assert client.queue()["12_3"].start == "" and client.queue()["12_3"].active
    (tmp_path / "squeue").write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact' >&2\nexit 1\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setattr(client, "_AGAIN_S", (0.0, 0.0))
    with pytest.raises(LaunchError, match="Unable to contact"):
        client.queue()


def test_a_question_is_asked_again_where_slurm_is_busy(tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text(
        f"#!/bin/sh\nif [ -e {tmp_path}/asked ]; then echo '7|PENDING|None|x||1:00||me'\nelse : >"
        f" {tmp_path}/asked\necho 'slurm_load_jobs error: Socket timed out on send/recv operation'"
        " >&2; exit 1; fi\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    (tmp_path / "scancel").write_text(
        f"#!/bin/sh\necho x >> {tmp_path}/cancels; echo 'Socket timed out on send/recv operation'"
        " >&2; exit 1\n"
    )
    (tmp_path / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(client, "_AGAIN_S", (0.0, 0.0))
    assert client.queue()["7"].state == "PENDING"
    with pytest.raises(LaunchError, match="Socket timed out"):
        client.cancel(["7"])
    assert (tmp_path / "cancels").read_text() == "x\n"  # what changes something is not repeated


@pytest.mark.parametrize(
    ("printed", "keys"),
    [
        ("12", ["12"]),
        ("12_3", ["12_3"]),
        ("103_[1-3%1]", ["103_1", "103_2", "103_3"]),
        ("103_[0,7,9-13:2]", ["103_0", "103_7", "103_9", "103_11", "103_13"]),
        ("103_[4-5,...]", ["103_4", "103_5"]),
    ],
)
def test_elements_that_slurm_prints_as_one_are_expanded(printed, keys):
    assert client.expand(printed) == keys


SACCT = """\
42|PREEMPTED by 0|61|cpu=24,gres/gpu:l4=5,gres/gpu=5,node=2|2|24|0:15|2026-03-01T10:00:00
42|COMPLETED|1307|billing=4,cpu=16,mem=32G,node=4|4|16|0:0|2026-03-01T11:30:00
57_6|FAILED|9|cpu=7,gres/gpu=1,node=3|3|7|1:0|2026-03-02T00:00:08
57_[7-9]|PENDING|0||0|0|0:0|Unknown
58|PENDING||||||
"""


def test_every_stay_of_a_job_is_read(tmp_path, monkeypatch):
    slurm = FakeSlurm(tmp_path, monkeypatch)
    slurm.answers("sacct", SACCT)
    spans = [
        {"key": "42", "state": "PREEMPTED", "seconds": 61, "gpus": 5, "nodes": 2, "cpus": 24}
        | {"exit_code": "0:15", "start": "2026-03-01T10:00:00"},
        {"key": "42", "state": "COMPLETED", "seconds": 1307, "gpus": 0, "nodes": 4, "cpus": 16}
        | {"exit_code": "0:0", "start": "2026-03-01T11:30:00"},
        {"key": "57_6", "state": "FAILED", "seconds": 9, "gpus": 1, "nodes": 3, "cpus": 7}
        | {"exit_code": "1:0", "start": "2026-03-02T00:00:08"},
        *(
            {"key": f"57_{k}", "state": "PENDING", "seconds": 0, "gpus": 0, "nodes": 0, "cpus": 0}
            | {"exit_code": "0:0", "start": "Unknown"}
            for k in (7, 8, 9)
        ),
        {"key": "58", "state": "PENDING", "seconds": 0, "gpus": 0, "nodes": 0, "cpus": 0}
        | {"exit_code": "", "start": ""},
    ]
    assert [vars(span) for span in client.job_spans(["57", "42", "58", "42"]) or []] == spans
    assert "--jobs=42,57,58" in slurm.calls("sacct")[0]
    assert client.job_spans([]) is None  # nothing is asked about no job
    slurm.answers("sacct", error="Slurm accounting storage is disabled", code=1)
    assert client.job_spans(["42"]) is None and len(slurm.calls("sacct")) == 2
