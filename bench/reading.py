"""CPU time and samples/s of reading: PNGs of 64x64 and pairs of 1 s at 48 kHz, ours against
decoding alone and against other loaders.

Every way ends in the same decoded batch of 64 in the main process, from files in the page cache;
PNG and FLAC are decoded by the same functions. A pass is the whole set, the start of loaders and
workers included. Ours reads in a global random order and checks every sample's CRC.
"""

import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from bench import peers
from bench.peers import BATCH, SIZE
from bench.writing import SHARDS, plain
from distgan.config.batch_layout import fit
from distgan.core import console, rng
from distgan.data.dataset import Data
from distgan.data.loader import Stream
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.codecs import image as image_codec

LIMIT, OURS = "decoding alone, bytes in memory (the limit)", "distgan, shuffled, CRC"
STOCK, SAME = "webdataset, shuffle(1000), its own decoder", "webdataset, shuffle(1000)"
ONE_CORE, TWO_WORKERS = 5, 3  # rounds


def fill(samples: list[tuple[bytes, ...]], numbers: Iterable[int]) -> torch.Tensor:
    """A batch decoded in one piece, as distgan.data.dataset does it."""
    numbers = list(numbers)
    if len(samples[0]) == 1:
        batch = np.empty((len(numbers), SIZE, SIZE, 3), np.uint8)
        for out, i in zip(batch, numbers, strict=True):
            image_codec.decode(samples[i][0], "png", out)
    else:
        batch = np.empty((len(numbers), 2, peers.RATE), np.int16)
        for out, i in zip(batch, numbers, strict=True):
            for row, data in zip(out, samples[i], strict=True):
                row[:] = audio_codec.read_flac(data)[0][:, 0]
    return torch.from_numpy(batch)


def decode(parts: Iterable[bytes]) -> torch.Tensor:
    """One sample, for loaders that put batches together themselves."""
    return fill([tuple(parts)], [0])[0]


def ours(data: Data, workers: int, resident: bool = False) -> Callable[[], int]:
    stream = Stream(
        data,
        0,
        fit(BATCH, 1, 1),
        0,
        torch.device("cpu"),
        workers=workers,
        resident_bytes=1 << 40 if resident else 0,
    )
    return lambda: sum(
        len(micros[0].real) for micros in itertools.islice(stream, len(data.train) // BATCH)
    )


def counted(loader: Iterable) -> int:
    return sum(
        len(batch[0]) if isinstance(batch, (list, tuple)) else len(batch) for batch in loader
    )


class InMemory(Dataset):
    def __init__(self, samples: list[tuple[bytes, ...]]):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, numbers: list[int]) -> torch.Tensor:
        return fill(self.samples, numbers)


def limit(samples: list[tuple[bytes, ...]], workers: int) -> Callable[[], int]:
    if workers:  # the batch is whole already: nothing to collate
        return lambda: counted(
            DataLoader(
                InMemory(samples), BATCH, shuffle=True, num_workers=workers, collate_fn=_whole
            )
        )
    order = (
        rng.numpy_generator(0, "bench/limit").permutation(len(samples)).tolist()
    )  # random, as ours is: memory likes order, too
    return lambda: sum(
        len(fill(samples, order[start : start + BATCH])) for start in range(0, len(samples), BATCH)
    )


def _whole(batch: torch.Tensor) -> torch.Tensor:
    return batch


class Files(Dataset):
    """One file for each member, in one folder."""

    def __init__(self, folder: Path, fields: tuple[str, ...], n: int):
        self.names = [[f"{folder}/s{i:06d}.{field}" for field in fields] for i in range(n)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> torch.Tensor:
        return decode(Path(name).read_bytes() for name in self.names[i])


def files(
    folder: Path, fields: tuple[str, ...], samples: list[tuple[bytes, ...]], workers: int
) -> Callable[[], int]:
    return lambda: counted(
        DataLoader(Files(folder, fields, len(samples)), BATCH, shuffle=True, num_workers=workers)
    )


def webdataset(
    folder: Path, fields: tuple[str, ...], workers: int, shuffle: int = 0, own: str = ""
) -> Callable[[], int]:
    """With our decoder, so that only the loaders differ, or as its own documentation has it.

    `own` is what its `decode` is given.
    """
    import webdataset as wds

    tars = sorted(str(path) for path in folder.glob("*.tar"))

    def run() -> int:
        data = wds.WebDataset(tars, shardshuffle=100 if shuffle else False)
        data = data.shuffle(shuffle) if shuffle else data
        if own:
            data = data.decode(own).to_tuple(*fields).batched(BATCH)
        else:
            data = data.map(lambda sample: (decode(sample[field] for field in fields),)).batched(
                BATCH
            )
        return counted(DataLoader(data, batch_size=None, num_workers=workers))

    return run


def mosaicml(folder: Path, fields: tuple[str, ...], workers: int) -> Callable[[], int]:
    import streaming

    class Decoded(streaming.StreamingDataset):
        def __getitem__(self, i):
            sample = super().__getitem__(i)
            return decode(sample[field] for field in fields)

    streaming.base.util.clean_stale_shared_memory()  # an earlier one that was not closed properly
    data = Decoded(local=str(folder), shuffle=True, batch_size=BATCH)
    return lambda: counted(DataLoader(data, BATCH, num_workers=workers))


def litdata(folder: Path, fields: tuple[str, ...], workers: int) -> Callable[[], int]:
    import litdata

    class Decoded(litdata.StreamingDataset):
        def __getitem__(self, i):
            sample = super().__getitem__(i)
            return decode(sample[field] for field in fields)

    data = Decoded(str(folder), shuffle=True)
    return lambda: counted(litdata.StreamingDataLoader(data, batch_size=BATCH, num_workers=workers))


def compare(
    kind: str,
    samples: list[tuple[bytes, ...]],
    fast: list[tuple[bytes, ...]],
    about: dict,
    fields: tuple[str, ...],
    fast_fields: tuple[str, ...],
    root: Path,
    rounds: tuple[int, int],
    there: set[str],
    only: str,
) -> peers.Rounds:
    """Write `samples` in every format, and `fast`, the same with a payload that needs no decoding,
    in ours; measure all with 0 and 2 workers.

    Returns what was measured with none.
    """
    label = "PNG" if kind == "images" else "FLAC"
    other = "raw uint8" if kind == "images" else "WAV"
    per_shard = len(samples) // 20
    described = [
        about | ({"field": names[0]} if kind == "images" else {"fields": names})
        for names in (fields, fast_fields)
    ]
    data = Data(str(peers.write_data(root / "ours", described[0], fields, samples, per_shard)))
    data_fast = Data(
        str(peers.write_data(root / "fast", described[1], fast_fields, fast, per_shard))
    )
    for name in there:
        SHARDS[name](root / name, fields, samples, per_shard)
    plain(root / "files", fields, samples)

    results = []
    for workers, count in zip((0, 2), rounds, strict=True):
        ways = {
            LIMIT: limit(samples, workers),
            OURS: ours(data, workers),
            f"distgan, {other} payload": ours(data_fast, workers),
        }
        if workers == 0:
            ways["distgan, resident"] = ours(data_fast, 0, resident=True)
            ways["distgan, bytes and CRC only"] = lambda: random_reads(data, fields)
        ways["a folder of files, shuffled"] = files(root / "files", fields, samples, workers)
        if "webdataset" in there:
            ways["webdataset, in order"] = webdataset(root / "webdataset", fields, workers)
            ways[SAME] = webdataset(root / "webdataset", fields, workers, shuffle=1000)
            if kind == "images":  # for sound its own decoder needs torchcodec and FFmpeg
                ways[STOCK] = webdataset(
                    root / "webdataset", fields, workers, shuffle=1000, own="torchrgb8"
                )
            ways["webdataset, in order, our tars"] = webdataset(
                root / "ours" / "train", fields, workers
            )
        if "mosaicml" in there:
            ways["mosaicml-streaming, shuffled"] = mosaicml(root / "mosaicml", fields, workers)
        if "litdata" in there:
            ways["litdata, shuffled"] = litdata(root / "litdata", fields, workers)
        measured = peers.Rounds(f"reading {kind}, {workers} workers", ways, count, only)
        measured.table(f"{label}, {workers} workers", LIMIT)
        results.append(measured)
    return results[0]


def random_reads(data: Data, fields: tuple[str, ...]) -> int:
    split = data.train
    order = rng.numpy_generator(0, "bench/reads").permutation(len(split)).tolist()
    for i in order:
        split.fields_of(i, fields)
    return len(order)


def main(quick: bool = False, only: str = "") -> None:
    torch.set_num_threads(1)
    rounds = (1, 1) if quick else (ONE_CORE, TWO_WORKERS)
    there = peers.installed()
    with peers.scratch() as root:
        pngs = peers.made(peers.image, 128 if quick else 20_000, "images")
        console.say(
            f"{len(pngs)} PNGs of {np.mean([len(data) for data in pngs]):.0f} bytes; load"
            f" {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
        )
        alone = compare(
            "images",
            [(png,) for png in pngs],
            [(peers.raw(png),) for png in pngs],
            peers.IMAGE,
            ("png",),
            ("npy",),
            root / "images",
            rounds,
            there,
            only,
        )
        del pngs
        flacs = peers.made(peers.pair, 64 if quick else 2000, "pairs")
        console.say(
            f"{len(flacs)} pairs of FLAC,"
            f" {np.mean([len(data) for both in flacs for data in both]):.0f} bytes each"
        )
        pairs = compare(
            "pairs",
            flacs,
            [peers.wav(both) for both in flacs],
            peers.PAIR,
            ("input.flac", "target.flac"),
            ("input.wav", "target.wav"),
            root / "pairs",
            rounds,
            there,
            only,
        )
    print()
    peers.asked("PNG, ours", alone.cpu_ratio(OURS, LIMIT), 1.06, "x the limit")
    peers.asked(
        "PNG, ours", alone.cpu_ratio(OURS, STOCK), 0.65, "x stock webdataset that shuffles, too"
    )
    peers.asked("PNG, ours", alone.cpu_ratio(OURS, SAME), 0.65, "x the same with our decoder")
    peers.asked("raw uint8, ours", alone.cpu("distgan, raw uint8 payload"), 15, "us")
    peers.asked("random read with CRC", alone.cpu("distgan, bytes and CRC only"), 8, "us")
    peers.asked("WAV pairs, ours", pairs.cpu("distgan, WAV payload"), 140, "us")
