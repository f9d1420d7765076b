"""The cost of a run, from the attempts in its folder and from the stays that sacct reports."""

import json
import time

from distgan.launchers.runs.accounting import run_cost
from distgan.launchers.slurm import client


def test_an_account_adds_up(tmp_path):
    for number, turn in enumerate(
        [
            {
                "kind": "preempted",
                "started": 101.0,
                "slurm_start": 100.0,
                "ended": 160.0,
                "queued": 90.0,
                "trained_s": 50.0,
                "kept_s": 30.0,
            },
            {
                "kind": "done",
                "started": 201.0,
                "slurm_start": 200.0,
                "ended": 230.0,
                "queued": 160.0,
                "trained_s": 20.0,
                "kept_s": 20.0,
            },
        ]
    ):
        folder = tmp_path / f"attempts/{number:03d}"
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(
            json.dumps({"job": "5_1", "cpus": 2, "gpus": 0, "step": 0, **turn})
        )
    found = run_cost(tmp_path, None)
    assert found.elapsed == 90 and found.turns == 2 and found.queued == 50 and found.units == 2
    assert found.seconds == {"useful": 50, "lost": 20, "failed": 0, "overhead": 20}
    stays = {
        "5_1": [
            client.JobSpan(
                key="5_1",
                state="PREEMPTED",
                seconds=61,
                gpus=0,
                nodes=1,
                cpus=2,
                exit_code="0:0",
                start=time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(100)),
            ),
            client.JobSpan(
                key="5_1",
                state="COMPLETED",
                seconds=31,
                gpus=0,
                nodes=1,
                cpus=2,
                exit_code="0:0",
                start=time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(200)),
            ),
        ]
    }
    assert (
        run_cost(tmp_path, stays).elapsed == 92
        and sum(run_cost(tmp_path, stays).seconds.values()) == 92
    )
