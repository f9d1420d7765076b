"""The process of one local job: the program of a job of Slurm, which reads from variables of the
same names which job it is.

    python -m distgan.launchers.executors.member FOLDER ELEMENT RESTART PLACE[,PLACE …]

It exits with 0 (done or stopped), 1 (failed) or 75 (not finished).
"""

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.core.files import only_owner_writes, write_atomic
from distgan.launchers.executors import processes
from distgan.launchers.slurm import client
from distgan.launchers.slurm.job import JobAttempt


class LocalAttempt(JobAttempt):
    """One start of a local job."""

    again = False  # the scheduler is to start it again

    def _requeue(self) -> None:
        self.again = True

    def _about(self, step: int) -> dict[str, Any]:
        # Slurm is not asked: it may be on this machine and know nothing of this job.
        now = time.time()
        return {
            **self._facts(step),
            "nodes": socket.gethostname(),
            "cpus": self.resources.cpus * self.resources.per_node,
            "queued": now,
            "slurm_start": now,
        }


def main(argv: list[str]) -> int:
    console.protect()
    console.ignore_closed_pipes()
    folder, element, restart, place = Path(argv[0]), int(argv[1]), int(argv[2]), argv[3].split(",")
    record: dict[str, Any] = {
        "process": processes.this_process().as_dict(),
        "host": socket.gethostname(),
        "place": place,
        "restart": restart,
        "began": time.time(),
    }
    write_record(folder, element, record)
    environment = {
        **client.clean_environment(dict(os.environ)),
        "SLURM_ARRAY_JOB_ID": f"local:{folder.name}",
        "SLURM_ARRAY_TASK_ID": str(element),
        "SLURM_RESTART_COUNT": str(restart),
    }
    if not place[0].startswith("cpu"):
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(place)
    attempt = LocalAttempt(folder, environment)
    try:
        attempt.take()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    write_record(
        folder, element, {**record, "ended": time.time(), "code": code, "again": attempt.again}
    )
    return code


def write_record(folder: Path, element: int, record: dict[str, Any]) -> None:
    """Write job-N.json, which none but this user can have written."""
    with only_owner_writes():
        write_atomic(folder / f"job-{element}.json", json.dumps(record))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
