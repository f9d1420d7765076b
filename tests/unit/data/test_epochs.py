"""`distgan.Loader`: each sample once an epoch, whatever ranks, batches, stops and resumes."""

import itertools
import json

import numpy as np
import pytest
import shard_sets
import torch
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import distgan
from distgan.core.errors import ConfigError, DataError, LaunchError
from distgan.data.order import Order


def numbers(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, :2].long() @ torch.tensor([256, 1])).tolist()


def leg(data, world, batch, count, state, members=False, **options):
    """Return what all ranks together take in `count` batches, [[sample, …] of each global batch],
    and the state of one of them. `members`: of the first stage of a pipeline.
    """
    taken, states, weights = [[] for _ in range(count)], [], []
    for rank in range(world):
        loader = batches = distgan.Loader(data, batch, rank=rank, world=world, seed=3, **options)
        if state:
            loader.load_state_dict(json.loads(json.dumps(state)))
        if members:
            key = webdataset.map(lambda sample: int(sample["__key__"]))
            whole = webdataset.batched(loader.part, collation_fn=list)
            batches = webdataset.DataPipeline(loader.samples(), key, whole)
        parts = itertools.chain.from_iterable(itertools.repeat(batches))  # epochs without end
        for found, part in zip(taken, parts):  # noqa: B905
            found += part if members else numbers(part)
            weights.append(loader.weight)
        states.append(loader.state_dict())
    assert all(state == states[0] for state in states)
    assert weights == [world / len(found) for found in taken] * world
    return taken, states[0]


LEG = st.tuples(st.integers(1, 3), st.integers(1, 30), st.integers(1, 9))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from([2, 9, 27, 40]),
    st.sampled_from([3, 10]),
    st.integers(0, 3),
    st.booleans(),
    st.booleans(),
    st.lists(LEG, min_size=1, max_size=4),
)
def test_every_sample_once_an_epoch_over_any_legs(
    folders, n, per_shard, window, shuffle, drop_last, legs
):
    data, state, position = folders(n, per_shard), None, 0
    order = Order(n, 3, window, tuple(data.train.bounds), shuffle)
    options = {"window": window, "shuffle": shuffle, "drop_last": drop_last}
    for world, batch, count in legs:
        batch = min(batch, n) if drop_last else batch
        taken, state = leg(data, world, batch, count, state, **options)
        for found in taken:
            end = (position // n + 1) * n
            if drop_last and end - position < batch:
                position, end = end, end + n
            stop = min(position + batch, end)
            assert found == order.locate(np.arange(position, stop))[0].tolist()
            position = stop
        if drop_last and 0 < -position % n < batch:
            position += -position % n
        assert state["samples_seen"] == position


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_first_stage_of_a_pipeline_has_the_same_samples_in_whole_batches(folders, world):
    data, state, seen = folders(27, 10), None, []
    for count in (2, 3, 1):  # a stop within an epoch, one at its end
        taken, state = leg(data, world, 6, count, state, members=True)
        seen += taken
    assert (seen, state) == leg(data, world, 6, 6, None) and len(seen[4]) == 3
    loader = distgan.Loader(data, 25, world=3, rank=1)  # 2 samples are left for 3 ranks
    with pytest.raises(ConfigError, match="drop_last=True"):
        next(iter(loader.samples()))


def test_decoding_processes_change_nothing_and_count_nothing_ahead(folders):
    data = folders(27, 10)
    here, ahead = (distgan.Loader(data, 4, seed=1, workers=workers) for workers in (0, 2))
    torch.manual_seed(0)
    for k, (a, b) in enumerate(zip(here, ahead, strict=True), 1):
        assert torch.equal(a, b) and ahead.state_dict()["samples_seen"] == min(4 * k, 27)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))  # workers take none of the program's numbers
    assert len(here) == 7 and ahead.epoch == 1


def test_an_iteration_that_was_broken_off_or_overtaken(folders):
    loader = distgan.Loader(folders(27, 10), 10, shuffle=False)
    older = iter(loader)
    assert numbers(next(older))[0] == 0
    state = loader.state_dict()
    assert numbers(next(iter(loader)))[0] == 0 and loader.epoch == 1  # the next epoch, whole
    with pytest.raises(RuntimeError, match="this iteration has ended"):
        next(older)
    loader.load_state_dict(state)
    assert [numbers(batch)[0] for batch in loader] == [10, 20]  # the rest
    assert [numbers(batch)[0] for batch in loader] == [0, 10, 20] and loader.epoch == 2


def test_parts_may_differ_and_be_empty(folders):
    parts = [
        [len(one) for one in distgan.Loader(folders(10, 10), 7, rank=rank, world=4)]
        for rank in range(4)
    ]
    assert parts == [[1, 0], [2, 1], [2, 1], [2, 1]]
    loader = distgan.Loader(folders(10, 10), 7, rank=0, world=4)
    *_, last = loader
    assert last.shape == (0, 1, 4, 4) and loader.weight == 4 / 3


def test_classes_come_with_the_samples(shapes):
    loader = distgan.Loader(shapes, 8, label="shape", rank=1, world=2)
    images, classes = next(iter(loader))
    assert images.shape == (4, 3, 32, 32) and classes.dtype == torch.int64
    data = loader.data
    found = Order(54, 0).locate(np.arange(4, 8))[0]
    assert classes.tolist() == data.classes["train"][found].tolist()
    held = distgan.Loader(shapes, 4, split="validation", label="shape", shuffle=False)
    assert sum((c.tolist() for _, c in held), []) == data.classes["validation"].tolist()


def test_clips_are_cut_as_a_run_cuts_them(recordings):
    loader = distgan.Loader(recordings, 8, crop=100, rank=3, world=40)
    shapes = {batch.shape[1:] for batch in loader}  # also of empty parts
    assert shapes == {(2, 100)}


def test_what_cannot_be_is_one_message(folders, monkeypatch):
    data = folders(27, 10)
    for options, said in (
        ({"batch": 0, "seed": -1}, r"batch=0; .* from 1 on\n.*seed=-1"),
        ({"batch": 4, "rank": 2, "world": 2}, "rank=2; allowed are 0 to 1"),
        ({"batch": 4, "rank": 1}, "give world= as well"),
        ({"batch": 4, "world": 2}, "give rank= as well"),
        ({"batch": 4, "verify": "x"}, "Loader: verify='x'; allowed are: size, sha256"),
        ({"batch": 4, "split": "test"}, "train, validation"),
        ({"batch": 28, "drop_last": True}, "leaves no batch of the 27"),
        ({"batch": 4, "label": "x"}, "no labels"),
        ({"batch": 4, "crop": 9}, "crop is for pairs"),
    ):
        with pytest.raises(ConfigError, match=said):
            distgan.Loader(data, **options)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match="RANK="):
        distgan.Loader(data, 4)
    monkeypatch.setenv("RANK", "1")
    assert distgan.Loader(data, 5).part == 3


def test_a_state_of_something_else_is_refused(folders):
    loader = distgan.Loader(folders(27, 10), 4, seed=1)
    state = loader.state_dict()
    for change, said in (
        ({"seed": 2}, r"seed=2 \(here 1\)"),
        ({"data": "0" * 16, "window": 1}, "data='0{16}' .*window=1"),
        ({"samples_seen": -1}, "no state"),
        ({"samples_seen": 10**30}, "no state"),
        ({"samples_seen": 2**63 - 1}, "no state"),
        ({"samples_seen": np.arange(3)}, "no state"),
        ({"seed": np.array([1, 2])}, r"seed=array\(\[1, 2\]\) \(here 1\)"),
        ({"data": torch.ones(3)}, r"data=tensor"),
        ({"more": 1}, "no state"),
    ):
        with pytest.raises(ConfigError, match=said):
            loader.load_state_dict({**state, **change})
    distgan.Loader(folders(27, 10), 9, seed=1, rank=1, world=3).load_state_dict(state)


def test_a_damaged_sample_is_named_also_by_a_worker(tmp_path):
    folder = shard_sets.images(tmp_path / "d", 27)
    (tar,) = sorted(folder.glob("train/*.tar"))[:1]
    content = bytearray(tar.read_bytes())
    content[content.index(b"NUMPY") + 130] ^= 1
    tar.write_bytes(content)
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"sample 000000|000000\.npy"):
            list(distgan.Loader(str(folder), 9, workers=workers))


@pytest.mark.gate
def test_a_pipeline_with_workers_of_torch_is_refused(folders):
    loader = distgan.Loader(folders(27, 10), 4)
    stages = webdataset.DataPipeline(loader.samples(), webdataset.batched(loader.part))
    with pytest.raises(ConfigError, match="read in the loop's process"):
        next(iter(torch.utils.data.DataLoader(stages, batch_size=None, num_workers=1)))
