"""Every sample exactly once an epoch, whatever the data, ranks, workers, accumulation and legs.

And batches hold what the shards hold.
"""

import contextlib
import itertools
import struct
import types
import zlib

import numpy as np
import pytest
import shard_sets
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distgan.config import batch_layout
from distgan.core.errors import ConfigError, DataError
from distgan.data import loader
from distgan.data.dataset import Data
from distgan.data.loader import Stream
from distgan.data.order import Order
from distgan.recipes import sagan
from distgan.shards.adopt import command as adopt_command

CPU = torch.device("cpu")
BATCH = 12
KEPT = 1 << 30


def leg(data, start, count, *, ranks, accumulation=1, workers=0, resident=0, window=0, batch=BATCH):
    """What all ranks together are delivered in some batches.

    [(position, address, sample by its pixels)], in the order of the global batch.
    """
    layout = batch_layout.fit(batch, ranks, accumulation)
    rows = []
    for rank in range(ranks):
        stream = iter(
            Stream(
                data,
                3,
                layout,
                rank,
                CPU,
                start=start,
                workers=workers,
                resident_bytes=resident,
                window=window,
            )
        )
        for micros in itertools.islice(stream, count):
            assert len(micros) == accumulation
            for micro in micros:
                numbers = micro.real[:, 0, 0, :2].long() @ torch.tensor([256, 1])
                slots = range(
                    micro.batch_index * batch + micro.rows.start,
                    micro.batch_index * batch + micro.rows.stop,
                )
                assert list(slots) == micro.positions.tolist()
                rows += zip(
                    micro.positions.tolist(), micro.address.tolist(), numbers.tolist(), strict=True
                )
        del stream  # as a kill does: what workers have decoded ahead is thrown away
    return sorted(rows)


def requires_exactly_once(data, seen, window):
    n, total = len(data.train), len(seen)
    assert [position for position, _, _ in seen] == list(range(total))
    for epoch in range(total // n):
        assert sorted(sample for _, _, sample in seen[epoch * n : (epoch + 1) * n]) == list(
            range(n)
        )
    samples, address = Order(n, 3, window, tuple(data.train.bounds)).locate(np.arange(total))
    assert [sample for _, _, sample in seen] == samples.tolist()
    assert [a for _, a, _ in seen] == address.tolist()  # augmentations are functions of it


def run_legs(data, batch, legs, window):
    seen = []
    for ranks, accumulation, workers, count, resident in legs:
        seen += leg(
            data,
            len(seen),
            count,
            ranks=ranks,
            accumulation=accumulation,
            workers=workers,
            resident=resident,
            window=window,
            batch=batch,
        )
    requires_exactly_once(data, seen, window)


NONE = st.just(0)


@st.composite
def batch_and_legs(draw, workers=NONE, most=4):
    """A global batch, and how it is shared from one stop to the next.

    (ranks, accumulation, workers, batches, resident).
    """
    batch = draw(st.sampled_from([5, 7, 8, 9, 10, 11, 12, 24, 60]))
    legs = []
    for _ in range(draw(st.integers(1, most))):
        ranks = draw(st.sampled_from([r for r in range(1, 13) if batch % r == 0]))
        accumulation = draw(st.sampled_from([a for a in (1, 2, 3) if batch % (ranks * a) == 0]))
        legs.append(
            (
                ranks,
                accumulation,
                draw(workers) if ranks <= 6 else min(1, draw(workers)),
                draw(st.integers(1, 6)),
                draw(st.sampled_from([0, KEPT])),
            )
        )
    return batch, legs


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 60), st.integers(1, 25), st.integers(0, 3), batch_and_legs())
def test_every_sample_once_an_epoch_over_any_legs(folders, n, per_shard, window, shared):
    run_legs(folders(n, per_shard), *shared, window)


@pytest.mark.gate
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than cores
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 60),
    st.integers(1, 25),
    st.integers(0, 3),
    batch_and_legs(st.integers(1, 3), most=2),
)
def test_every_sample_once_with_processes_that_decode_ahead(folders, n, per_shard, window, shared):
    batch, legs = shared
    run_legs(folders(n, per_shard), batch, [(*leg[:4], 0) for leg in legs], window)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 80), st.integers(1, 25), st.integers(0, 3), batch_and_legs(st.integers(0, 3)))
def test_every_sample_once_over_many_more_legs(folders, n, per_shard, window, shared):
    batch, legs = shared
    run_legs(folders(n, per_shard), batch, [(*leg[:4], 0) for leg in legs], window)


@pytest.mark.parametrize("payload", ["png", "raw"])
@pytest.mark.parametrize("channels", [1, 3])
def test_memory_and_processes_deliver_the_same_pixels(tmp_path, payload, channels):
    data = Data(str(shard_sets.images(tmp_path / "d", 30, payload=payload, channels=channels)))
    layout = batch_layout.fit(BATCH, 2, 2)
    memory, workers, here = (
        iter(Stream(data, 0, layout, 1, CPU, start=24, workers=w, resident_bytes=r))
        for w, r in ((0, KEPT), (2, 0), (0, 0))
    )
    for _ in range(3):
        for a, b, c in zip(next(memory), next(workers), next(here), strict=True):
            assert torch.equal(a.real, b.real) and torch.equal(a.real, c.real)
            assert (
                a.real.stride() == b.real.stride() == c.real.stride()
            )  # the same sums in convolutions
            assert a.real.shape == (3, channels, 4, 4)


def test_copying_one_batch_ahead_changes_nothing(folders, monkeypatch):
    """The order of what a GPU would be given; the streams themselves need one."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(
        torch.cuda,
        "current_stream",
        lambda device: types.SimpleNamespace(wait_stream=lambda other: None),
    )
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    delivered = [(np.array([i]), np.array([i]), torch.tensor([i])) for i in range(5)]
    assert [
        int(real) for _, _, real in itertools.islice(loader._one_ahead(iter(delivered), CPU), 4)
    ] == [0, 1, 2, 3]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_gpu_is_given_the_same_batches(folders, workers):
    layout = batch_layout.fit(BATCH, 1, 2)
    ahead, here = (
        iter(Stream(folders(60, 10), 0, layout, 0, device, workers=workers))
        for device in (torch.device("cuda"), CPU)
    )
    for _ in range(6):
        for a, b in zip(next(ahead), next(here), strict=True):
            assert (
                torch.equal(a.real.cpu(), b.real)
                and np.array_equal(a.positions, b.positions)
                and a.rows == b.rows
            )


# ---- pairs of signals
CROP = 20


@pytest.mark.parametrize("payload", ["wav", "flac"])
@pytest.mark.parametrize("frames", [100, [64, 100, 9000] * 20])
def test_both_of_a_pair_are_cropped_alike_at_a_place_of_their_address(tmp_path, payload, frames):
    data = Data(
        str(
            shard_sets.pairs(
                tmp_path / "d",
                27,
                frames=frames if isinstance(frames, int) else frames[:30],
                payload=payload,
            )
        )
    )
    layout = batch_layout.fit(BATCH, 2, 1)
    seen = {}
    for start, workers, resident in ((0, 0, 0), (0, 2, 0), (0, 0, KEPT)):
        for rank in range(2):
            stream = iter(
                Stream(
                    data,
                    0,
                    layout,
                    rank,
                    CPU,
                    start=start,
                    workers=workers,
                    resident_bytes=resident,
                    crop=CROP,
                )
            )
            for (micro,) in itertools.islice(stream, 5):
                assert micro.real.shape == (6, 2, CROP) and micro.real.dtype == torch.int16
                assert torch.equal(micro.real[:, 0], -micro.real[:, 1])
                assert (micro.real[:, 0].diff() == 1).all()
                for address, first in zip(
                    micro.address.tolist(), micro.real[:, 0, 0].tolist(), strict=True
                ):
                    assert seen.setdefault(address, first) == first
    places = [first - 100 * (address % 27) for address, first in seen.items()]
    assert len(set(places)) > 20 and min(places) >= 0


def test_the_window_reaches_both_ends(tmp_path):
    data = Data(str(shard_sets.pairs(tmp_path / "d", 1, frames=100)))
    for at, start in ((0.0, 0), (0.999999, 80), (0.5, 40)):
        (window,) = data.decode(data.train, [0], CROP, np.array([at]))
        assert window[0].tolist() == list(range(start, start + CROP))


def test_a_crop_reads_the_header_once_and_then_its_own_bytes_alone(tmp_path, monkeypatch):
    data = Data(str(shard_sets.pairs(tmp_path / "d", 2, frames=30_000)))
    reads = []
    usual = data.train.read_range
    monkeypatch.setattr(
        data.train,
        "read_range",
        lambda i, field, start, stop: (
            reads.append((field, start, stop)) or usual(i, field, start, stop)
        ),
    )
    first, again = (data.decode(data.train, [1], CROP, np.array([at])) for at in (0.2, 0.7))
    assert [stop - start for _, start, stop in reads] == [
        4096,
        4096,
        2 * CROP,
        2 * CROP,
        2 * CROP,
        2 * CROP,
    ]
    assert torch.equal(first[0, 0], -first[0, 1]) and again[0, 0, 0] - first[0, 0, 0] == int(
        0.7 * 29981
    ) - int(0.2 * 29981)


def test_splits_of_one_folder_are_kept_apart(tmp_path):
    """As `distgan index` makes them of a flat folder.

    The same place in both splits is another sample.
    """
    made = shard_sets.pairs(
        tmp_path / "d", 4, 2, held_out=2, frames=[30_000, 31_000, 32_000, 33_000, 34_000, 35_000]
    )
    (tmp_path / "flat").mkdir()
    for tar in made.glob("*/*.tar"):
        tar.rename(tmp_path / "flat" / tar.name)
    assert adopt_command.main([str(tmp_path / "flat")]) == 0
    data = Data(str(tmp_path / "flat"))
    for _ in range(2):
        for split in (data.train, data.validation):
            for i in range(len(split)):
                (window,) = data.decode(split, [i], CROP, np.array([0.9999999]))
                number = int(split.key(i))
                assert int(window[0, -1]) == int(np.array(29_999 + 1100 * number).astype(np.int16))


def test_clips_of_different_lengths_need_a_crop_that_fits(tmp_path):
    data = Data(str(shard_sets.pairs(tmp_path / "d", 3, frames=[64, 100, 70, 80, 90, 60])))
    with pytest.raises(
        ConfigError, match="60 to 100 frames; a recipe that takes them whole needs one length"
    ):
        Stream(data, 0, batch_layout.fit(3, 1, 1), 0, CPU)
    with pytest.raises(
        ConfigError, match="windows of 61 frames are asked for, the shortest clip has 60"
    ):
        Stream(data, 0, batch_layout.fit(3, 1, 1), 0, CPU, crop=61)
    assert [chunk.shape for chunk in data.chunks(data.validation, 2)] == [
        (1, 2, 80),
        (1, 2, 90),
        (1, 2, 60),
    ]


def test_a_recipe_for_images_refuses_pairs(tmp_path):
    with pytest.raises(ConfigError, match="sagan trains on images, this data set holds pairs"):
        Data(str(shard_sets.pairs(tmp_path / "d", 3))).require(sagan.Settings(data="d"))


def test_a_pair_that_is_not_as_the_data_set_says_is_named(tmp_path):
    data = Data(str(shard_sets.pairs(tmp_path / "d", 3, frames=[50, 60, 60, 60, 60, 60])))
    data = Data(str(tmp_path / "d"))
    object.__setattr__(data.sample, "length", 55)
    with pytest.raises(DataError, match="sample 000000 does not decode: input has .* 50, 1, 1000"):
        data.decode(data.train, [0])


# ---- the validation set, and what surrounds a batch
def test_noise_is_cut_from_the_global_batch(folders):
    data = folders(20, 10)
    whole = next(iter(Stream(data, 0, batch_layout.fit(BATCH, 1, 1), 0, CPU, resident_bytes=KEPT)))
    parts = [
        next(iter(Stream(data, 0, batch_layout.fit(BATCH, 3, 2), rank, CPU, resident_bytes=KEPT)))
        for rank in range(3)
    ]
    rows = {
        (m.rows.start, m.rows.stop): m.noise(5, "noise/d", 8, BATCH) for part in parts for m in part
    }
    assert torch.equal(
        torch.cat([rows[at] for at in sorted(rows)]), whole[0].noise(5, "noise/d", 8, BATCH)
    )


def test_a_folder_without_shards_says_how_to_make_them(tmp_path):
    with pytest.raises(DataError, match="which is empty. `distgan shard --help`"):
        Data(str(tmp_path))
    (tmp_path / "photos" / "in").mkdir(parents=True)
    (tmp_path / "photos" / "in" / "A.JPG").touch()
    line = f"distgan shard images data/photos --from {tmp_path}/photos"
    with pytest.raises(DataError, match=f"holds images, and no shards. Make them: {line}; then"):
        Data(str(tmp_path / "photos"))
    with pytest.raises(DataError, match="Make them: distgan shard images lost --from FOLDER"):
        Data("lost")


def test_the_validation_set_comes_whole_with_its_last_chunk(particles):
    data = Data(str(particles))
    sizes = [len(chunk) for chunk in data.chunks(data.validation, 4)]
    assert sizes == [4, 2]
    assert sum(len(chunk) for chunk in data.chunks(data.train, 4, limit=6)) == 6


def chunk(name, content):
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png(size, *chunks):
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)),
            *chunks,
        ]
    )


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n",
        png(60000, chunk(b"IDAT", b"")),
        png(64, chunk(b"IDAT", zlib.compress(bytes(64 * 65))[:9]), b"\0\0\0\1\0\0\0|????????"),
        b"",
    ],
    ids=["PostScript", "bomb", "chunk", "empty"],
)
def test_what_is_no_png_is_named_and_not_opened(tmp_path, content):
    """Intact shards that someone else has made: the checksums fit."""
    sample = {"kind": "image", "channels": 1, "size": 64, "field": "png"}
    root = shard_sets.write(
        tmp_path / "d", sample, lambda i: {"__key__": f"k{i}", "png": content}, 4, 2, 10
    )
    data = Data(str(root))
    with pytest.raises(DataError, match=r"\.tar: sample k0 does not decode: ") as caught:
        data.decode(data.train, [0])
    said = str(caught.value)
    assert "Ghostscript" not in said and f"distgan index {root} --skip-broken" in said


def test_a_loader_that_was_divided_twice_is_noticed_at_once(tmp_path, monkeypatch):
    data = Data(str(shard_sets.images(tmp_path / "d", 27)))
    stream = Stream(data, 0, batch_layout.fit(BATCH, 2, 1), 0, CPU)
    honest = loader._ahead
    monkeypatch.setattr(loader, "_ahead", lambda *a: itertools.islice(honest(*a), 0, None, 2))
    batches = iter(stream)
    next(batches)
    with pytest.raises(RuntimeError, match="the loader delivered stream positions"):
        next(batches)


@pytest.mark.parametrize(("ranks", "accumulation"), [(1, 1), (1, 3), (2, 1), (3, 2)])
def test_numbers_for_dropout_belong_to_the_place_in_the_stream(folders, ranks, accumulation):
    """Whatever ranks and micro-batches.

    Row i of the global batch is drawn from its position, columns and purposes apart.
    """
    data, rows = folders(30, 7), {}
    for rank in range(ranks):
        stream = iter(Stream(data, 3, batch_layout.fit(BATCH, ranks, accumulation), rank, CPU))
        for micro in itertools.chain.from_iterable(itertools.islice(stream, 2)):
            rows |= dict(
                zip(micro.positions.tolist(), micro.uniform(5, "dropout", 4).tolist(), strict=True)
            )
    found = torch.tensor([rows[i] for i in range(2 * BATCH)])
    whole = torch.cat(
        [
            micro.uniform(5, "dropout", 4)
            for (micro,) in itertools.islice(
                iter(Stream(data, 3, batch_layout.fit(BATCH, 1, 1), 0, CPU)), 2
            )
        ]
    )
    assert torch.equal(found, whole)
    assert (
        len(set(found.flatten().tolist())) == found.numel()
        and 0 <= found.min()
        and found.max() < 1
        and 0.3 < found.mean() < 0.7
    )
