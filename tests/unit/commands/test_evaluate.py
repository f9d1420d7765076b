"""`distgan evaluate`: the same numbers with any number of processes, beside their floor, with all
that is needed to repeat them; what is refused.
"""

import io
import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shard_sets import copy_data

from distgan.commands import _evaluate_images, evaluate, generate, report
from distgan.config.sections import Machine
from distgan.core.errors import ConfigError, DataError, LaunchError, RunError
from distgan.data.dataset import Data
from distgan.distributed.map_over_ranks import one_thread
from distgan.distributed.ranks import Ranks
from distgan.evaluation.drawn import require_same_generator
from distgan.evaluation.features.choice import Choice
from distgan.evaluation.image_evaluator import Evaluator
from distgan.evaluation.sets import opening, statistics_cache
from distgan.shards.codecs import image as image_codec
from distgan.shards.codecs import image_files
from distgan.shards.codecs.fitting import to_size
from distgan.shards.sources import images as source


@pytest.fixture
def ranks():
    return Ranks(Machine(device="cpu"))


def images(folder: Path, n: int, size: int = 32, mode: str = "RGB", seed: int = 0) -> Path:
    folder.mkdir()
    for i, pixels in enumerate(
        np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    ):
        Image.fromarray(pixels).convert(mode).save(folder / f"{i:03d}.PNG")
    return folder


# ---- the promise


def test_the_result_can_be_repeated_from_what_it_says(trained, tmp_path):
    home, _ = trained
    assert (
        evaluate.main(
            [
                str(home / "run"),
                f"data={home / 'data'}",
                "n=30",
                "device=cpu",
                f"out={tmp_path / 'one.json'}",
                "against=all",
            ]
        )
        == 0
    )
    said = json.loads((tmp_path / "one.json").read_text())
    made = said["made_with"]
    assert said["metric"] == "frechet_standin" and (
        said["samples"],
        said["reals"],
        said["against"],
    ) == (30, 60, "all")
    assert (
        made["images"] == Data(str(home / "data")).fingerprint
        and len(made["weights_sha256"]) == 64
        and made["preprocessing"] == "none"
        and made["seed"] == 0
    )
    assert (
        said["averaged"] is True
        and said["step"] == int(said["checkpoint"])
        and said["noise"] == "noise/results"
        and "torch" in made["versions"]
    )
    # With statistics beside the data nothing of the real images is decoded.
    assert set(said["seconds"]) >= {"images", "samples", "scores"}
    assert (
        said["score_sd"] >= 0
        and said["score_at_infinity"] is None
        and "it needs 960 samples" in said["score_at_infinity_by"]
    )
    for numbers in (said["floor"]["real"], said["floor"]["generated"]):
        assert {"score", "kernel_standin", "precision", "sliced_wasserstein"} <= numbers.keys()
    assert said["floor"]["real"]["score"] < said["floor"]["generated"]["score"]
    # The files that `distgan generate` writes are these samples: the same numbers from the folder.
    words = [str(home / "run"), "count=30", f"out={tmp_path / 'made'}", "device=cpu"]
    assert generate.main(words) == 0
    assert (
        evaluate.main(
            [
                f"real={home / 'data'}",
                f"fake={tmp_path / 'made' / 'images'}",
                "device=cpu",
                "extractor=standin",
                f"out={tmp_path / 'two.json'}",
            ]
        )
        == 0
    )
    again = json.loads((tmp_path / "two.json").read_text())  # in another order: 1e-9
    for key in ("score", "kernel_standin", "precision", "coverage", "nearest"):
        assert again[key] == pytest.approx(said[key], rel=1e-9), key
    assert again["sliced_wasserstein"] == pytest.approx(said["sliced_wasserstein"], rel=1e-9)
    assert again["floor"]["real"]["score"] == said["floor"]["real"]["score"]
    expected = pytest.approx(said["floor"]["generated"]["score"], rel=1e-9)
    assert again["floor"]["generated"]["score"] == expected  # of all 30 on either side


def test_a_stand_in_score_is_called_so_everywhere(trained, tmp_path, capsys):
    """No output of a training, an evaluation or a report has the three letters beside the
    stand-in's numbers.
    """
    home, printed = trained
    assert evaluate.main([str(home / "run"), f"data={home / 'data'}", "n=20", "device=cpu"]) == 0
    assert report.main([str(home / "run")]) == 0
    page = re.sub(r'"data:image[^"]*"', "", (home / "run" / "report.html").read_text())
    assert "<h2>Scores" in page and "distgan evaluate" in page
    texts = {"training": printed, "said": capsys.readouterr().out, "page": page}
    texts |= {
        path.name: path.read_text()
        for pattern in ("*.json*", "*.yaml", "eval/*.json", "eval/asked/*.json")
        for path in (home / "run").glob(pattern)
    }
    texts |= {
        path.name: repr(statistics_cache.open_user_file(path)[0])
        for path in (home / "data" / "statistics").iterdir()
    }
    assert len(texts) >= 8
    for name, text in texts.items():
        assert not re.search("fid(?!e)", text, re.IGNORECASE), name
    assert sum("frechet_standin" in text for text in texts.values()) >= 6


# ---- statistics beside the data
@pytest.mark.gate
def test_statistics_are_made_once_and_verified(particles, tmp_path, ranks, capsys):
    data = copy_data(particles, tmp_path / "data")

    def score(**options):
        found = Evaluator(ranks, Data(str(data)), 20, Choice(), **options).measure(
            lambda numbers: torch.zeros(len(numbers), 1, 64, 64)
        )
        return found["score"], "real images: 60/60" in capsys.readouterr().out

    for path in ("features", "moments"):
        first, looked = score(path=path)
        assert looked and score(path=path) == (first, False)
        (file,) = (data / "statistics").glob(f"{path}-*.safetensors")
        damaged = bytearray(file.read_bytes())
        damaged[-5] ^= 1
        file.write_bytes(damaged)
        assert score(path=path)[0] == first and score(path=path) == (first, False)
        file.write_bytes(damaged[:1000])
        value = Evaluator(ranks, Data(str(data)), 20, Choice(), path=path).measure(
            lambda numbers: torch.zeros(len(numbers), 1, 64, 64)
        )["score"]
        assert (
            value == first
            and "is damaged" in (said := capsys.readouterr().out)
            and "computed again" in said
        )
        file.write_bytes(b"")
        assert score(path=path)[0] == first


def test_a_data_set_that_cannot_be_written_beside(particles, tmp_path, ranks, capsys):
    data = copy_data(particles, tmp_path / "data")
    (data / "statistics").write_text("in the way")
    Evaluator(ranks, Data(str(data)), 20, Choice()).measure(
        lambda numbers: torch.zeros(len(numbers), 1, 64, 64)
    )
    assert "note: statistics of the real images are not stored" in capsys.readouterr().out


def test_statistics_of_other_settings_are_never_compared(particles, tmp_path, ranks):
    data = copy_data(particles, tmp_path / "data")
    for path, n in (("features", 20), ("moments", 20)):
        Evaluator(ranks, Data(str(data)), n, Choice(), True, path=path).load_reference()
        (file,) = (data / "statistics").glob(f"{path}-*.safetensors")
        real = opening.open_any(str(file))
        fake = opening.open_set(str(data))
        whole = Evaluator(ranks, fake, n, Choice(), True, path=path).compare(fake)
        kept = Evaluator(ranks, real, n, Choice(), True, path=path).compare(fake)
        assert {key: value for key, value in kept.items() if key != "made_with"} == {
            key: value for key, value in whole.items() if key != "made_with"
        }
    other = Evaluator(ranks, real, 25, Choice(), True, path="moments")
    with pytest.raises(
        RunError, match=r"(?s)cannot be compared.*floor: made with 20, needed is 25"
    ):
        other.load_reference()
    other = Evaluator(ranks, real, 20, Choice(), True, path="moments")
    other.extract.preprocessing, other.extract.digest = "clean", "ab"
    with pytest.raises(
        RunError,
        match=(
            r"(?s)preprocessing: made with none, needed is clean.*weights_sha256: made with .*,"
            r" needed is ab"
        ),
    ):
        other.load_reference()


# ---- what cannot be scored
@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (float("nan"), "samples 0 to 15 are not finite"),
        (255.0, r"samples reach 255, expected are values in \[-1, 1\]"),
    ],
)
def test_samples_that_are_no_images(particles, ranks, fill, message):
    scored = Evaluator(ranks, Data(str(particles)), 20, Choice())

    def sample(numbers):
        return torch.full((len(numbers), 1, 64, 64), fill)

    with pytest.raises(RunError, match=message):
        scored.measure(sample)
    if fill == 255.0:  # one pixel is enough
        images = torch.zeros(16, 1, 64, 64)
        images[3, 0, 5, 7] = -fill
        with pytest.raises(RunError, match=message):
            scored.measure(lambda numbers: images[: len(numbers)])
    if fill != fill:
        said = scored(
            sample
        )  # in a training: a score that is no number, which the journal and watch speak of
        assert np.isnan(said["score"]) and "not finite" in said["note"]


def test_identical_samples_and_few_of_them(particles, ranks):
    """Both have a defined value: a covariance of 0, of rank 1."""
    for n in (2, 7):
        said = Evaluator(
            ranks,
            Data(str(particles)),
            n,
            Choice(),
            metrics=("frechet", "kernel", "manifold", "nearest"),
            thorough=True,
        ).measure(lambda numbers: torch.zeros(len(numbers), 1, 64, 64))
        assert said["score"] > 0
        if n == 2:
            assert (said["score_sd"], said["score_sd_by"]) == (None, "needs 4 samples")
        else:
            assert said["score_sd"] == pytest.approx(0, abs=1e-9)
        assert (said["kernel_standin"] is None, said["precision"] is None) == (
            (True, True) if n == 2 else (False, False)
        )


def test_sets_of_one_image_and_none(tmp_path, ranks):
    with pytest.raises(
        DataError, match="one holds 1 image to compare 5 with, and a Fréchet distance needs"
    ):
        Evaluator(ranks, opening.open_set(str(images(tmp_path / "one", 1))), 5, Choice(), True)
    with pytest.raises(DataError, match="two holds 2 images to compare 1 with"):
        Evaluator(ranks, opening.open_set(str(images(tmp_path / "two", 2))), 1, Choice(), True)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"holds no images .*it holds nothing"):
        opening.open_set(str(tmp_path / "none"))


def test_a_data_set_with_nothing_held_out(tmp_path, ranks):
    real = opening.open_set(str(images(tmp_path / "real", 9)))
    said = Evaluator(ranks, real, 9, Choice(), True).compare(
        opening.open_set(str(images(tmp_path / "fake", 9, seed=1)))
    )
    assert said["nearest"] is None and said["score"] > 0


def test_folders_of_files(tmp_path, ranks):
    """Any depth, any case; gray counts as its three equal channels; what cannot be read is
    named.
    """
    folder = images(tmp_path / "files", 4)
    (folder / "deeper").mkdir()
    Image.new("L", (32, 32), 77).save(folder / "deeper" / "gray.jpeg", quality=95)
    found = opening.open_set(str(folder))
    gray = found.decode([found.files.index("deeper/gray.jpeg")])
    assert len(found) == 5 and gray.shape == (1, 3, 32, 32) and gray.unique().numel() == 1
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(folder / "deep.png")
    found = opening.open_set(str(folder))
    deep = found.decode([found.files.index("deep.png")])
    assert deep.unique().tolist() == [round(40_000 / 257)], "as `distgan shard images` scales it"
    Image.fromarray(np.full((32, 32), 0.5, np.float32)).save(folder / "deep.png", "TIFF")
    with pytest.raises(DataError, match="deep.png cannot be decoded: pixels of mode F have no sta"):
        opening.open_set(str(folder))
    (folder / "deep.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="deep.png cannot be decoded"):
        opening.open_set(str(folder)).decode(range(6))
    Image.new("RGB", (33, 32)).save(folder / "deep.png")
    with pytest.raises(DataError, match=r"several sizes \(32x32 as .*, 33x32 as deep.png\)"):
        opening.open_set(str(folder))
    (folder / "deep.png").write_bytes(png16(32))
    with pytest.raises(
        DataError, match=r"deep.png cannot be decoded: more than 8 bits .* \(RGB;16B\)"
    ):
        opening.open_set(str(folder))


def png16(size):
    """A PNG of 16 bits in each of three channels, which Pillow reads and cannot write."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + struct.pack(">3H", 4095, 2048, 100) * size for _ in range(size))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_files_of_a_folder_are_seen_as_shards_of_them_are(tmp_path):
    """Transparent ones on black, turned ones upright."""
    folder = tmp_path / "files"
    folder.mkdir()
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 256, (16, 16, 4), np.uint8), "RGBA").save(folder / "0.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8)).save(
        folder / "1.png", exif=turned
    )
    opened = opening.open_set(str(folder))
    found = opened.decode([0, 1]).permute(0, 2, 3, 1).numpy()
    for name, seen in zip(opened.files, found, strict=True):
        np.testing.assert_array_equal(
            seen, np.asarray(to_size(image_files.picture(folder / name)[0], 16).convert("RGB"))
        )


def tiff16(size, planar):
    """A TIFF of three channels of 16 bits, one beside the other or each in a plane of its own."""
    values, strips = struct.pack("<H", 2000) * size * size, 3 if planar else 1
    each, at = len(values) * 3 // strips, 8 + 2 + 12 * 10 + 4
    bits, offsets, counts, start = at, at + 6, at + 6 + 4 * strips, at + 6 + 8 * strips
    of_strips = (offsets, counts) if planar else (start, each)
    fields = [
        (256, 3, 1, size),
        (257, 3, 1, size),
        (258, 3, 3, bits),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, strips, of_strips[0]),
        (277, 3, 1, 3),
        (278, 3, 1, size),
        (279, 4, strips, of_strips[1]),
        (284, 3, 1, 2 if planar else 1),
    ]
    head = (
        b"II*\0"
        + struct.pack("<IH", 8, 10)
        + b"".join(struct.pack("<HHII", *one) for one in fields)
        + bytes(4)
        + struct.pack("<3H", 16, 16, 16)
    )
    return (
        head
        + struct.pack(f"<{strips}I", *(start + i * each for i in range(strips)))
        + struct.pack(f"<{strips}I", *[each] * strips)
        + values * 3
    )


def pnm(kind, size, most, value):
    """A PPM (P6, P3) or PGM (P5, P2) of one value."""
    count = size * size * (3 if kind in ("P6", "P3") else 1)
    body = (
        struct.pack(">H" if most > 255 else "B", value) * count
        if kind in ("P6", "P5")
        else f"{value} ".encode() * count
    )
    return f"{kind}\n{size} {size}\n{most}\n".encode() + body


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.png", png16(16)),
        ("a.tif", tiff16(16, False)),
        ("a.tif", tiff16(16, True)),
        ("a.ppm", pnm("P6", 16, 65535, 2000)),
        ("a.ppm", pnm("P6", 16, 4095, 2000)),
        ("a.ppm", pnm("P3", 16, 65535, 2000)),
    ],
)
@pytest.mark.parametrize("limits", [None, (0, 4095)])
def test_colour_of_more_than_8_bits_is_refused_and_never_cut(name, data, limits, tmp_path):
    (tmp_path / name).write_bytes(data)
    assert (
        "more than 8 bits in each of several channels"
        in source.inspect_image(tmp_path / name, 16, limits).error
    )
    with pytest.raises(DataError, match=f"{name} cannot be decoded: more than 8 bits"):
        opening.open_set(str(tmp_path))


@pytest.mark.parametrize(
    ("data", "limits", "level"),
    [
        (pnm("P5", 16, 4095, 2000), (0, 4095), 2000 / 4095),
        (pnm("P2", 16, 4095, 2000), (0, 4095), 2000 / 4095),
        (pnm("P5", 16, 4095, 2000), None, 2000 / 4095),
        (pnm("P5", 16, 65535, 2000), (0, 4095), 2000 / 4095),
        (pnm("P2", 16, 65535, 2000), (0, 4095), 2000 / 4095),
        (pnm("P5", 16, 65535, 2000), None, 2000 / 65535),
        (pnm("P6", 16, 255, 200), None, 200 / 255),
        (pnm("P6", 16, 100, 50), None, 0.5),
        (pnm("P5", 16, 255, 200), None, 200 / 255),
    ],
)
def test_values_of_a_portable_map_are_those_of_its_file(data, limits, level):
    """Pillow scales gray ones to 16 bits; --range is of the values in the file."""
    image, _ = image_files.picture(io.BytesIO(data), limits)
    assert abs(float(np.asarray(image).mean()) - 255 * level) < 0.51


def test_colour_of_16_bits_is_no_shard(tmp_path):
    """Pillow drops the low half of its bits as it reads."""
    (tmp_path / "a.png").write_bytes(png16(16))
    with pytest.raises(ValueError, match="more than 8 bits"):
        image_codec.decode(
            (tmp_path / "a.png").read_bytes(), "png", np.empty((16, 16, 3), np.uint8)
        )


def test_shards_in_the_order_they_are_asked_for(particles):
    data = Data(str(particles))
    found = opening.open_set(str(particles))
    assert (len(found), found.training) == (60, 54)
    whole = torch.cat([data.decode(data.train, range(54)), data.decode(data.validation, range(6))])
    assert torch.equal(found.decode([58, 3, 59, 0, 58]), whole[[58, 3, 59, 0, 58]])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "RUN, or REAL FAKE: give a run; or two sets, the real one first"),
        (["RUN", "--real", "a", "--fake", "b"], "RUN, or REAL FAKE"),
        (["a", "b", "c"], "c: one too many"),
        (["--real", "a"], "RUN, or REAL FAKE"),
        (["."], "is no run; to compare two sets name both, the real one first"),
        (["nowhere", "nothing"], "nowhere: no such folder"),
        (["nothing"], "nothing"),
        (["--real", "nowhere", "--fake", "nowhere"], "nowhere: no such folder"),
        (["RUN", "metrics=fix"], "metrics: found 'fix'"),
    ],
)
def test_words_it_does_not_know(words, message):
    with pytest.raises(ConfigError, match=message):
        evaluate.main(words)


def test_a_name_that_the_score_could_not_have(trained):
    home, _ = trained
    with pytest.raises(
        ConfigError,
        match=(
            "metrics: found fid, kid, but without the published Inception weights .* allowed:"
            " frechet, kernel"
        ),
    ):
        evaluate.main([str(home / "run"), f"data={home / 'data'}", "metrics=fid,kid", "device=cpu"])


def test_the_column_of_the_floor_is_named():
    floor = {"samples": 30, "real": {"score": 2.0}, "generated": {"score": 3.0}}
    made = {"extractor": "x", "preprocessing": "none", "path": "features"}
    result = {"metric": "frechet_standin", "score": 1.0, "samples": 94, "reals": 60}
    ((heads, rows, notes),) = _evaluate_images.tables(result | {"floor": floor, "made_with": made})
    columns = dict(zip(heads, rows[0], strict=True))
    assert columns["94 samples, 60 real samples"] == "frechet_standin" and columns["score"] == 1.0
    assert columns["30 samples"] == 3.0 and columns["floor: 30 real samples"] == 2.0
    assert columns["better"] == "lower ↓" and "A perfect generator scores its floor" in notes[1]
    ((heads, _, notes),) = _evaluate_images.tables(result | {"floor": None, "made_with": made})
    assert heads[4:] == ("", "") and notes[0].startswith("not judged") and len(notes) == 2


def test_ranks_whose_generators_differ_are_refused(monkeypatch, ranks):
    monkeypatch.setattr(ranks, "world_size", 2)
    monkeypatch.setattr(
        ranks, "on_rank_zero", lambda work: torch.zeros(16, 1, 64, 64, dtype=torch.uint8)
    )
    monkeypatch.setattr(ranks, "on_all_ranks", lambda work: work())
    with pytest.raises(
        LaunchError, match="draws other samples than rank 0, up to 128 grey levels apart"
    ):
        require_same_generator(ranks, lambda n: torch.zeros(len(n), 1, 64, 64), "image")
    require_same_generator(ranks, lambda n: -torch.ones(len(n), 1, 64, 64), "image")


def test_the_threads_of_a_process_change_nothing_and_are_put_back(particles, ranks):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with one_thread():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
