"""The benchmarks run, measure every way of doing the same, and count the processes that a way
starts.
"""

import re
import subprocess
import sys

import pytest

from bench import comparing, frechet, peers, reading, shuffling, writing

# webdataset leaves the closing of its files to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(peers.tempfile, "tempdir", str(tmp_path))
    yield
    # multiprocessing keeps the sockets of decoding processes there, and removes them at its exit.
    left = [path for path in tmp_path.iterdir() if not path.name.startswith("pymp-")]
    assert not left, "data were left behind"


def rows(text: str) -> dict[str, str]:
    """{name: figures} of all tables."""
    cells = [
        line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith("| ")
    ]
    return {name: figures for name, figures in cells if figures}


@pytest.mark.gate
def test_reading(capsys):
    reading.main(quick=True, only="distgan")
    assert set(rows(capsys.readouterr().out)) >= {
        reading.OURS,
        "distgan, raw uint8 payload",
        "distgan, WAV payload",
        "distgan, resident",
    }


def test_every_loader_gives_every_sample(tmp_path, monkeypatch):
    """Figures per sample compare only if each way decodes the same samples, once."""
    batches = []
    monkeypatch.setattr(
        reading, "counted", lambda loader: sum(len(part) for part in map(seen, loader))
    )

    def seen(batch):
        batch = batch[0] if isinstance(batch, (list, tuple)) else batch
        batches.append(batch)
        return batch

    samples = [(peers.image(i),) for i in range(70)]
    sums = sorted(int(reading.decode(sample).sum()) for sample in samples)
    folder = peers.write_data(
        tmp_path / "ours", peers.IMAGE | {"field": "png"}, ("png",), samples, 35
    )
    writing.plain(tmp_path / "files", ("png",), samples)
    writing.tars(tmp_path / "webdataset", ("png",), samples, 35)
    ways = [
        reading.files(tmp_path / "files", ("png",), samples, 0),
        reading.webdataset(tmp_path / "webdataset", ("png",), 0),
        reading.webdataset(folder / "train", ("png",), 0, shuffle=20),
        reading.limit(samples, 2),
    ]
    for way in ways:
        batches.clear()
        assert way() == 70
        assert sorted(int(image.sum()) for batch in batches for image in batch) == sums
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.gate
def test_writing(capsys):
    writing.main(quick=True, only="1 worker")
    text = capsys.readouterr().out
    assert writing.OURS in rows(text) and "opening an index of 2,000 samples" in text


@pytest.mark.gate
def test_shuffling(capsys):
    shuffling.main(quick=True)
    found = {
        name: float(figure)
        for name, figure in rows(capsys.readouterr().out).items()
        if name != "order"
    }
    assert abs(found["distgan"] - found["random (ideal)"]) < 0.3
    assert (
        found["distgan, window of 2 shards"]
        < 3
        < found["distgan, window of 4 shards"]
        < found["distgan, window of 8 shards"]
        < 9
    )


def test_frechet(capsys):
    """Small sizes: the errors are what they should be, the ratios mean nothing."""
    frechet.main(quick=True)
    text = capsys.readouterr().out
    found = [float(one) for one in re.findall(r"relative error: distgan ([^, ]+)", text)]
    assert len(found) == 5 and max(found) < 1e-9 and "limit 300" not in text


@pytest.mark.parametrize("n", [90, 200])
def test_one_pass_over_all_pairs_gives_the_numbers_of_many(n):
    """All metrics and the floor's, as each was computed by itself before."""
    sets = comparing.features(n, 16)
    (_, mine), (_, theirs) = comparing.one_pass(*sets, 1), comparing.many_passes(*sets, 1)
    assert mine.keys() == theirs.keys() and mine == pytest.approx(theirs, rel=1e-10)


def test_the_clock_counts_what_a_way_starts():
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    cpu, wall = peers.clocked(
        lambda: subprocess.run([sys.executable, "-c", spin], check=True) and 10
    )
    assert 30_000 <= cpu < 100_000 and wall >= 30_000


def test_a_ratio_is_the_median_of_the_rounds():
    rounds = peers.Rounds("nothing", {}, 1)
    rounds.times = {"a": [(2, 1), (40, 1), (3, 1)], "b": [(1, 4), (20, 4), (1, 2)]}
    assert (
        rounds.cpu_ratio("a", "b") == 2 and rounds.speed("a", "b") == 4 and rounds.cpu("c") is None
    )


def test_what_was_asked_is_said(capsys):
    peers.asked("PNG, ours", 1.044, 1.06, "x the limit")
    peers.asked("ours", 1.2, 1.3, "x", least=True)
    peers.asked("not measured", None, 1, "x")
    assert (
        capsys.readouterr().out
        == "PNG, ours: 1.04 x the limit; asked: at most 1.06: reached\nours: 1.2 x; asked: at least"
        " 1.3: MISSED\n"
    )


def test_a_missing_peer_is_named_with_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(
        peers, "PEERS", [("gone", "no_such_module", "no-such-loader", "pip install no-such-loader")]
    )
    assert peers.installed() == set()
    assert (
        "left out: no-such-loader (No module named 'no_such_module'); to compare with it: pip"
        " install no-such-loader" in capsys.readouterr().out
    )
