"""Order is a pure function of the position; a stream is dealt exactly once, whatever the ranks, accumulation and legs."""

import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distgan import sharing, signals
from distgan.batches import Data, Stream, locate, permutation
from distgan.errors import DataError


@pytest.fixture(scope="module")
def data(particles):
    return Data(str(particles))


def leg(data, start, steps, ranks, accumulation, batch):
    """What all ranks together see in `steps` batches: [(position, address)], in the order of the global batch."""
    share = sharing.breakdown(batch, ranks, accumulation)
    streams = [iter(Stream(data, 3, share, rank, torch.device("cpu"), start=start, resident_bytes=1 << 30)) for rank in range(ranks)]
    seen = []
    for _ in range(steps):
        micros = [micro for stream in streams for micro in next(stream)]
        rows = [(slot, p, a) for m in micros for slot, p, a in zip(range(m.slots.start, m.slots.stop), m.positions, m.address, strict=True)]
        assert sorted(slot for slot, _, _ in rows) == list(range(batch))
        seen += [(int(p), int(a)) for _, p, a in sorted(rows)]
    return seen


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 6, 12]), st.sampled_from([1, 2]), st.integers(1, 4)), min_size=1, max_size=4))
def test_every_sample_once_per_epoch_over_any_legs(legs):
    data = pytest.data
    batch, start, seen = 12, 0, []
    for ranks, accumulation, steps in legs:
        if batch % (ranks * accumulation):
            accumulation = 1
        seen += leg(data, start, steps, ranks, accumulation, batch)
        start += steps * batch
    assert [p for p, _ in seen] == list(range(start))
    n = len(data.train)
    for epoch in range(start // n):
        assert sorted(a - epoch * n for _, a in seen[epoch * n:(epoch + 1) * n]) == list(range(n))
    whole = locate(np.arange(start), n, 3)[1]
    assert [a for _, a in seen] == whole.tolist()


@pytest.fixture(autouse=True)
def _data_for_properties(data):
    pytest.data = data


def test_epochs_are_shuffled_apart():
    a, b = permutation(100, 0, 0), permutation(100, 0, 1)
    assert sorted(a) == sorted(b) == list(range(100))
    assert not np.array_equal(a, b)
    assert not np.array_equal(a, permutation(100, 1, 0))


def test_workers_deliver_what_memory_delivers(data):
    share = sharing.breakdown(12, 2, 2)
    memory, workers = (iter(Stream(data, 0, share, 1, torch.device("cpu"), start=24, workers=2, resident_bytes=size)) for size in (1 << 30, 0))
    for _ in range(3):
        for a, b in zip(next(memory), next(workers), strict=True):
            assert torch.equal(a.real, b.real)
            assert np.array_equal(a.positions, b.positions)


def test_noise_is_cut_from_the_global_batch(data):
    whole = next(iter(Stream(data, 0, sharing.breakdown(12, 1, 1), 0, torch.device("cpu"), resident_bytes=1 << 30)))
    parts = [next(iter(Stream(data, 0, sharing.breakdown(12, 3, 2), r, torch.device("cpu"), resident_bytes=1 << 30))) for r in range(3)]
    rows = {(m.slots.start, m.slots.stop): m.noise(5, "noise/d", 8, 12) for part in parts for m in part}
    assert torch.equal(torch.cat([rows[at] for at in sorted(rows)]), whole[0].noise(5, "noise/d", 8, 12))


def test_a_flip_belongs_to_the_sample_not_to_the_batch():
    images = torch.randint(0, 256, (6, 1, 4, 4)).float()
    address = np.array([5, 900, 31, 7, 8, 9])
    flipped = signals.flip(images, 0, address, 0.5, 0.5)
    alone = torch.cat([signals.flip(images[i:i + 1], 0, address[i:i + 1], 0.5, 0.5) for i in range(6)])
    assert torch.equal(flipped, alone)
    assert torch.equal(signals.flip(images, 0, address, 1.0, 0.0), images.flip(3))
    assert torch.equal(signals.flip(images, 0, address, 0.0, 1.0), images.flip(2))
    assert torch.equal(signals.flip(images, 0, address, 0.0, 0.0), images)


def test_bytes_and_units_are_inverse():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(signals.to_bytes(signals.to_unit(levels)), levels)
    assert signals.to_unit(levels).min() == -1
    assert signals.to_unit(levels).max() == 1


def test_a_folder_without_shards_says_how_to_make_them(tmp_path):
    with pytest.raises(DataError, match="distgan shard particles"):
        Data(str(tmp_path))


def test_the_validation_set_comes_whole_with_its_last_chunk(data):
    sizes = [len(chunk) for chunk in data.chunks(data.validation, 4)]
    assert sizes == [4, 2]
    assert sum(len(chunk) for chunk in data.chunks(data.train, 4, limit=6)) == 6


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(size, *chunks):
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)), *chunks])


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n", png(60000, chunk(b"IDAT", b"")),
                                     png(64, chunk(b"IDAT", zlib.compress(bytes(64 * 65))[:9]), b"\0\0\0\1\0\0\0|????????"), b""], ids=["PostScript", "bomb", "chunk", "empty"])
def test_what_is_no_png_is_named_and_not_opened(data, content):
    """Intact shards that someone else has made: the checksums fit."""
    with pytest.raises(DataError, match="sample k does not decode: ") as caught:
        data.decode([{"__key__": "k", "png": content}], 0)
    assert "Ghostscript" not in str(caught.value)
