"""CPU microseconds per 64x64 PNG: ours in random order with CRC, against decoding alone (the limit) and stock webdataset in file order.

CPU time of one process, median of 5 interleaved rounds: wall time on a shared machine measures the neighbours.
"""

import io
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from distgan.batches import Data, permutation
from shards import build

N, ROUNDS, BATCH = 2000, 5, 64


def decode(data: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.array(image.convert("L")))[None]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        build.main(["particles", f"{folder}/data", "--n", str(N), "--per-shard", "500"])
        data = Data(f"{folder}/data")
        samples = [data.train[i]["png"] for i in range(len(data.train))]
        order = permutation(len(samples), 0, 0)
        tars = sorted(str(path) for path in Path(folder, "data", "train").glob("*.tar"))

        def limit():
            return (decode(samples[i]) for i in range(len(samples)))

        def ours():
            return (data.decode(data.train, int(i)) for i in order)

        def webdataset():
            import webdataset as wds

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield from (decode(sample["png"]) for sample in wds.WebDataset(tars, shardshuffle=False))

        ways = {"decode only (limit)": limit, "distgan, shuffled, CRC": ours, "webdataset, in order": webdataset}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                began, batch = time.process_time(), []
                for image in way():
                    batch.append(image)
                    if len(batch) == BATCH:
                        torch.stack(batch)
                        batch = []
                times[name].append((time.process_time() - began) / len(samples) * 1e6)
        base = statistics.median(times["decode only (limit)"])
        for name, values in times.items():
            middle = statistics.median(values)
            print(f"{name:26} {middle:8.1f} us/image  [{min(values):.1f}..{max(values):.1f}]  {middle / base:.2f} x the limit")
