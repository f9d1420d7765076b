"""A million samples in a data set."""

import json
import subprocess
import sys

from distgan.shards.format.manifest import fingerprint

# Not ru_maxrss: it is handed down to what a large process, such as this one, starts.
OPEN = """
import re, sys, time
from pathlib import Path
from distgan.shards.format.reader import ShardSet
began = time.process_time()
shard_set = ShardSet(sys.argv[1])
seconds = time.process_time() - began
peak_kb = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(len(shard_set), seconds, int(peak_kb) / 1024)
"""


def test_a_million_samples_open_in_six_seconds_and_300_mb(tmp_path):
    entry = {"size": 12416, "crc32": 2**31}
    shards = []
    for k in range(100):
        name = f"m-{k:06d}"
        files = {
            f"{10000 * k + i:08d}.npy": {"offset": 512 + i * 13312, **entry} for i in range(10000)
        }
        shards.append(
            {
                "file": f"{name}.tar",
                "samples": 10000,
                "bytes": 10000 * 13312 + 10240,
                "sha256": f"{k:064x}",
            }
        )
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"filesize": shards[-1]["bytes"], "hash_lfs": f"{k:064x}", "files": files})
        )
        with open(tmp_path / f"{name}.tar", "wb") as tar:
            tar.truncate(shards[-1]["bytes"])  # sparse
    (tmp_path / "manifest.json").write_text(
        json.dumps(
            {
                "version": 1,
                "name": "m",
                "fields": ["npy"],
                "samples": 1000000,
                "shards": shards,
                "fingerprint": fingerprint([shard["sha256"] for shard in shards]),
            }
        )
    )
    out = subprocess.run(
        [sys.executable, "-c", OPEN, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout.split()
    samples, seconds, megabytes = map(float, out)
    assert samples == 1e6 and seconds < 6 and megabytes < 300, out
