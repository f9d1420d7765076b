"""Classes in a batch of 64 where the data lie in class order, 20 shards of 1,000 samples, one class
each: how well an order mixes.

One reader, no workers: several of them mix batches, not what is inside a batch.
"""

import itertools
from collections.abc import Iterable, Iterator
from math import comb
from pathlib import Path

import numpy as np
import torch

from bench import peers
from bench.peers import BATCH, PER_SHARD
from bench.writing import chunks, mds, tars
from distgan.config.batch_layout import fit
from distgan.data.dataset import Data
from distgan.data.loader import Stream
from distgan.shards.codecs import image as image_codec

CLASSES = 20


def ours(folder: Path, window: int, batches: int) -> Iterator[int]:
    stream = Stream(Data(str(folder)), 0, fit(BATCH, 1, 1), 0, torch.device("cpu"), window=window)
    for (micro,) in itertools.islice(stream, batches):
        yield from micro.real[:, 0, 0, 0].tolist()


def webdataset(folder: Path, shuffle: int) -> Iterator[int]:
    import webdataset as wds

    data = wds.WebDataset(sorted(str(path) for path in folder.glob("*.tar")), shardshuffle=CLASSES)
    for sample in data.shuffle(shuffle) if shuffle else data:
        yield sample["npy"][-1]


def mosaicml(folder: Path, how: str) -> Iterator[int]:
    import streaming

    streaming.base.util.clean_stale_shared_memory()
    for sample in streaming.StreamingDataset(
        local=str(folder), shuffle=True, shuffle_algo=how, batch_size=BATCH
    ):
        yield sample["npy"][-1]


def litdata(folder: Path) -> Iterator[int]:
    import litdata

    for sample in litdata.StreamingDataset(str(folder), shuffle=True):
        yield sample["npy"][-1]


def mixed(classes: Iterable[int]) -> float:
    """The mean number of different classes in whole batches."""
    found = np.fromiter(classes, np.int64)
    batches = found[: len(found) // BATCH * BATCH].reshape(-1, BATCH)
    return float(np.mean([len(set(batch)) for batch in batches.tolist()]))


def main(quick: bool = False, only: str = "") -> None:
    per_shard = 100 if quick else PER_SHARD
    there = peers.installed()
    n = CLASSES * per_shard
    ideal = CLASSES * (1 - comb(n - per_shard, BATCH) / comb(n, BATCH))
    samples = [
        (image_codec.encode(np.full((8, 8), k, np.uint8), "raw")[1],)
        for k in range(CLASSES)
        for _ in range(per_shard)
    ]
    with peers.scratch() as root:
        about = {"kind": "image", "channels": 1, "size": 8, "field": "npy"}
        peers.write_data(root / "ours", about, ("npy",), samples, per_shard)
        print(
            f"\n| order | classes in a batch of {BATCH} |\n|---|---|\n| random (ideal) |"
            f" {ideal:.2f} |"
        )
        reached = mixed(ours(root / "ours", 0, n // BATCH))
        rows = {"distgan": reached} | {
            f"distgan, window of {k} shards": mixed(ours(root / "ours", k, n // BATCH))
            for k in (2, 4, 8)
        }
        if "webdataset" in there:
            tars(root / "webdataset", ("npy",), samples, per_shard)
            rows |= {
                f"webdataset, {f'shuffle({k})' if k else 'shards only'}": mixed(
                    webdataset(root / "webdataset", k)
                )
                for k in (0, 1000, 5000)
            }
        if "mosaicml" in there:
            mds(root / "mosaicml", ("npy",), samples, per_shard)
            rows |= {
                f"mosaicml-streaming {how}": mixed(mosaicml(root / "mosaicml", how))
                for how in ("py1s", "py1e")
            }
        if "litdata" in there:
            chunks(root / "litdata", ("npy",), samples, per_shard)
            rows["litdata"] = mixed(litdata(root / "litdata"))
        for name, value in rows.items():
            print(f"| {name} | {value:.2f} |")
    print()
    peers.asked(
        "classes in a batch, ours",
        reached,
        round(ideal - 0.1, 2),
        f"(ideal {ideal:.2f})",
        least=True,
    )
