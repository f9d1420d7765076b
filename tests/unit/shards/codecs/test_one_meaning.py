"""A picture means the same by every door: `distgan shard`, tars that `distgan index` took, training
on them, `distgan check`, folders of `distgan evaluate`, the report. Each case is right against
values that are known, or refused with a reason; none differs between doors.
"""

import base64
import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distgan.core.arguments import Arguments
from distgan.core.errors import DataError
from distgan.data.dataset import Data
from distgan.evaluation.sets.folders import FolderImages
from distgan.report import media
from distgan.shards.adopt import command as adopt_command
from distgan.shards.audit.images import Examiner
from distgan.shards.audit.shard_integrity import Place
from distgan.shards.codecs import image_files
from distgan.shards.sources.images import Source

SIZE = 16
Y, X = np.mgrid[0:SIZE, 0:SIZE]
GRAY = (X * 9 + Y * 7 + 3).astype(np.uint8)  # 3 to 243, no symmetry
RGB = np.stack([GRAY, GRAY[::-1], np.uint8(255) - GRAY.T], -1)
PROFILE = (  # as of a camera: a header, one tag, and its text
    bytes(128) + struct.pack(">I4sII", 1, b"desc", 144, 40) + b"desc" + bytes(4)
    + struct.pack(">I", 11) + b"Display P3\0" + bytes(17)
)  # fmt: skip


def tiff(values: bytes, bits: int, photometric: int = 1, kind: int = 1, channels: int = 1):
    """An uncompressed TIFF; `kind`: of values, 1 unsigned, 2 signed, 3 float."""
    tags = {256: SIZE, 257: SIZE, 259: 1, 262: photometric, 277: channels, 278: SIZE, 284: 1}
    tags |= {273: 8, 279: len(values), 258: bits, 339: kind}
    end = 8 + len(values) + len(values) % 2
    late = end + 2 + 12 * len(tags) + 4  # what does not fit into an entry
    entries, extra = b"", b""
    for tag, value in sorted(tags.items()):
        if tag in (258, 339) and channels > 2:
            entries += struct.pack("<HHII", tag, 3, channels, late + len(extra))
            extra += struct.pack("<H", value) * channels
        else:
            n = channels if tag in (258, 339) else 1
            entries += struct.pack("<HHI", tag, 3, n) + (struct.pack("<H", value) * n).ljust(
                4, b"\0"
            )
    body = values.ljust(end - 8, b"\0") + struct.pack("<H", len(tags)) + entries + bytes(4) + extra
    return b"II*\0" + struct.pack("<I", end) + body


def twelve(values: np.ndarray) -> bytes:
    pairs = values.astype(int).reshape(-1, 2)
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs.tolist())


def packed(values: np.ndarray, bits: int) -> bytes:
    rows = ((values[..., None] >> np.arange(bits)[::-1]) & 1).reshape(SIZE, -1)
    return np.packbits(rows.astype(np.uint8), axis=1).tobytes()


def png(values: np.ndarray, bits: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", SIZE, SIZE, bits, colour, 0, 0, 0)
    middle = [chunk(*one) for one in chunks]
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *middle, chunk(b"IDAT", zlib.compress(rows)),
         chunk(b"IEND", b"")]
    )  # fmt: skip


def pnm(kind: bytes, values: np.ndarray, most: int) -> bytes:
    return (
        b"%s\n%d %d\n%d\n" % (kind, SIZE, SIZE, most)
        + values.astype(">u2" if most > 255 else "u1").tobytes()
    )


def saved(pixels: np.ndarray | Image.Image, form: str, **how) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, form, **how)
    return file.getvalue()


def turned(form: str, orientation: int, pixels: np.ndarray = RGB) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(pixels, form, exif=exif)


ALPHA = np.where(Y < SIZE // 2, 0, 255).astype(np.uint8)
SEEN = RGB * (ALPHA[..., None] > 0)
DEEP = GRAY.astype(np.uint16)
PALETTE = Image.fromarray((GRAY // 64).astype(np.uint8), "L")
PALETTE.putpalette([9, 8, 7, 90, 80, 70, 150, 140, 130, 250, 240, 230])
COLOURS = np.array([[9, 8, 7], [90, 80, 70], [150, 140, 130], [250, 240, 230]], np.uint8)
MOVING = {"save_all": True, "append_images": [Image.fromarray(RGB[::-1])]}
CMYK = np.concatenate([255 - RGB, np.zeros((SIZE, SIZE, 1), np.uint8)], -1)

BILEVEL = GRAY // 128 * 255
BIG_ENDIAN = Image.frombytes("I;16B", (SIZE, SIZE), (DEEP * 257).astype(">u2").tobytes())

RIGHT = {  # name: (file, the pixels that it means)
    "orientation-png.png": (turned("PNG", 6), np.rot90(RGB, -1)),
    "orientation-tiff.tif": (turned("TIFF", 8), np.rot90(RGB)),
    "orientation-gray.png": (turned("PNG", 3, GRAY), np.rot90(GRAY, 2)),
    "orientation-16.png": (turned("PNG", 6, DEEP * 257), np.rot90(GRAY, -1)),
    "alpha.png": (saved(np.dstack([RGB, ALPHA]), "PNG"), SEEN),
    "alpha.webp": (saved(np.dstack([RGB, ALPHA]), "WEBP", lossless=True, exact=True), SEEN),
    "alpha-gray.png": (saved(np.dstack([GRAY, ALPHA]), "PNG"), GRAY * (ALPHA > 0)),
    "palette-key.png": (saved(PALETTE, "PNG", transparency=1),
                        np.where(GRAY[..., None] // 64 == 1, 0, COLOURS[GRAY // 64])),
    "key-16.png": (png((DEEP * 257).astype(">u2"), 16, 0, (b"tRNS", struct.pack(">H", 30 * 257))),
                   np.where(GRAY == 30, 0, GRAY)),
    "depth-png16.png": (png((DEEP * 257).astype(">u2"), 16, 0), GRAY),
    "depth-tiff16.tif": (tiff((DEEP * 257).astype("<u2").tobytes(), 16), GRAY),
    "depth-tiff12.tif": (tiff(twelve(DEEP * 4095 // 255), 12),
                         np.rint((DEEP * 4095 // 255) * (255 / 4095)).astype(np.uint8)),
    "depth-tiff4.tif": (tiff(packed(GRAY // 16, 4), 4), GRAY // 16 * 17),
    "depth-tiff1.tif": (tiff(packed(GRAY // 128, 1), 1), GRAY // 128 * 255),
    "depth-pgm.pgm": (pnm(b"P5", DEEP * 4095 // 255, 4095),
                      np.rint((DEEP * 4095 // 255) * (255 / 4095)).astype(np.uint8)),
    "depth-ppm.ppm": (pnm(b"P6", RGB // 85, 3), RGB // 85 * 85),
    "white-is-zero-1.tif": (tiff(packed(1 - GRAY // 128, 1), 1, photometric=0), GRAY // 128 * 255),
    "white-is-zero-8.tif": (tiff((255 - GRAY).tobytes(), 8, photometric=0), GRAY),
    "white-is-zero-16.tif": (tiff((65535 - DEEP * 257).astype("<u2").tobytes(), 16, photometric=0),
                             GRAY),
    "big-endian-16.tif": (saved(BIG_ENDIAN, "TIFF"), GRAY),
    "cmyk.tif": (tiff(CMYK.tobytes(), 8, photometric=5, channels=4), RGB),
    "named-otherwise.jpg": (saved(RGB, "WEBP", lossless=True), RGB),
    "first-frame.gif": (saved(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(90)]),
                        COLOURS[GRAY // 64]),
    "first-frame.png": (saved(RGB, "PNG", **MOVING), RGB),
    "first-frame.tiff": (saved(RGB, "TIFF", **MOVING), RGB),
    "bilevel.bmp": (saved(Image.fromarray(BILEVEL).convert("1"), "BMP"), BILEVEL),
    "other-space.png": (saved(RGB, "PNG", icc_profile=PROFILE), RGB),
    "other-gamma.png": (png(RGB, 8, 2, (b"gAMA", struct.pack(">I", 100_000))), RGB),
    "jfif.jfif": (saved(np.full((SIZE, SIZE), 120, np.uint8), "JPEG"), np.full_like(GRAY, 120)),
}  # fmt: skip
SIGNED16 = ((DEEP.astype(int) - 128) * 200).astype("<i2").tobytes()
CUT = saved(np.random.default_rng(0).integers(0, 256, RGB.shape, np.uint8), "JPEG")
REFUSED = {  # name: (file, why)
    "colour-16.png": (png((RGB.astype(">u2") * 257), 16, 2), "more than 8 bits in each of several"),
    "colour-16.tif": (tiff((RGB.astype("<u2") * 257).tobytes(), 16, 2, channels=3),
                      "more than 8 bits in each of several"),
    "alpha-16.png": (png(np.dstack([DEEP, DEEP]).astype(">u2"), 16, 4), "more than 8 bits"),
    "signed-8.tif": (tiff(GRAY.tobytes(), 8, kind=2), "signed 8-bit values"),
    "signed-16.tif": (tiff(SIGNED16, 16, kind=2), "no stated range"),
    "unsigned-32.tif": (tiff((DEEP.astype("<u4") << 24).tobytes(), 32), "no stated range"),
    "float.tif": (tiff((GRAY / 255).astype("<f4").tobytes(), 32, kind=3), "no stated range"),
    "float.pgm": (b"Pf\n%d %d\n-1.0\n" % (SIZE, SIZE) + (GRAY / 255).astype("<f4").tobytes(),
                  "no stated range"),
    "page.jpg": (b"<html>403</html>", "not an image"),
    "empty.jpg": (b"", "not an image"),
    "cut.jpg": (CUT[: len(CUT) // 2], "runcated"),
}  # fmt: skip


@pytest.fixture(scope="module")
def doors(tmp_path_factory) -> dict[str, dict[str, np.ndarray]]:
    """The pixels of every file of RIGHT by each door: uint8 [height, width, 3] by its name."""
    root = tmp_path_factory.mktemp("doors")
    for folder in ("files", "tars"):
        (root / folder).mkdir()
    for name, (data, _) in RIGHT.items():
        (root / "files" / name).write_bytes(data)
    names = sorted(RIGHT)
    # Tars have one field, so files are named .png there; what they are is in their bytes.
    for part, some in (("a", names[:3]), ("b", names[3:])):
        with tarfile.open(root / "tars" / f"{part}.tar", "w") as archive:
            for name in some:
                info = tarfile.TarInfo(f"{name.replace('.', '_')}.png")
                info.size = len(RIGHT[name][0])
                archive.addfile(info, io.BytesIO(RIGHT[name][0]))
    return {
        "shard": _sharded(root / "files"),
        "training": _adopted(root / "tars"),
        "evaluate": _evaluated(root / "files"),
        "report": {name: _reported(root / "files" / name) for name in ("alpha.png", "key-16.png")},
    }


def _sharded(folder: Path) -> dict[str, np.ndarray]:
    args = dict.fromkeys(("range", "labels")) | {"folder": str(folder), "size": SIZE, "channels": 3}
    source = Source(Arguments(**args, payload="raw", fit="crop"))
    report = source.check(1)
    assert [issue.reason for issue in report.issues if not issue.usable] == []
    spaces = [note for note in report.notes if "colour space" in note]
    assert len(spaces) == 1 and spaces[0].startswith("2 of ") and "gamma 1" in spaces[0]
    samples = [source.make(i) for i in range(len(source.keys))]
    return {
        json.loads(sample["json"])["file"]: np.load(io.BytesIO(sample["npy"])) for sample in samples
    }


def _adopted(folder: Path) -> dict[str, np.ndarray]:
    assert adopt_command.main([str(folder)]) == 0
    about = json.loads((folder / "dataset.json").read_text())
    assert about["sample"]["decoding"] == image_files.DECODING
    assert any("state ICC profile Display P3, another colour space" in n for n in about["notes"])
    data, seen = Data(str(folder)), {}
    for split in (data.train, data.validation):
        for i in range(len(split)):
            seen[split.key(i)] = data.decode(split, [i])[0].permute(1, 2, 0).numpy()
    examiner = Examiner(about["sample"], ["png"])
    for name, (file, _) in RIGHT.items():
        report = examiner._inspect(Place("train", Path("a"), 0, name), file, "png")
        assert report.errors == {} and report.values, f"check: {name}: {report.errors}"
    return {name: seen[name.replace(".", "_")] for name in RIGHT}


def _evaluated(folder: Path) -> dict[str, np.ndarray]:
    images = FolderImages(folder)
    assert images.traits.colour_space["ICC profile Display P3"] == 1
    return {
        name: images.decode([i])[0].permute(1, 2, 0).numpy() for i, name in enumerate(images.files)
    }


def _reported(path: Path) -> np.ndarray:
    uri = media.picture(path, SIZE)
    assert uri is not None
    data = base64.b64decode(uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("name", RIGHT)
def test_a_picture_means_the_same_by_every_door(doors, name):
    expected = RIGHT[name][1]
    expected = np.repeat(expected[..., None], 3, -1) if expected.ndim == 2 else expected
    for door, seen in doors.items():
        if door == "report":  # a JPEG
            if name in seen:
                assert np.abs(seen[name].astype(int) - expected).mean() < 8, door
            continue
        np.testing.assert_array_equal(seen[name], expected, err_msg=f"by {door}")


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_one_meaning_is_refused_by_every_door(tmp_path, name, capsys):
    data, why = REFUSED[name]
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / name).write_bytes(data)
    args = dict.fromkeys(("range", "labels", "channels"))
    source = Source(Arguments(**args, folder=str(tmp_path / "files"), size=SIZE, payload="raw",
                              fit="crop"))  # fmt: skip
    (issue,) = source.check(1).issues
    assert not issue.usable
    with pytest.raises(DataError):
        FolderImages(tmp_path / "files").decode([0])
    out = np.empty((SIZE, SIZE, 3), np.uint8)
    with pytest.raises(Exception, match=why):
        image_files.decode(data, "png", out)
    if name == "cut.jpg":  # `index` reads headers; `distgan check` and training decode
        return
    with pytest.raises(Exception, match=why):
        image_files.header(io.BytesIO(data))
    assert why in issue.reason


def test_a_range_makes_a_meaning_and_wraps_nothing(tmp_path):
    """32 bits without a sign, above the half; WhiteIsZero floats."""
    wide = tiff((DEEP.astype("<u4") << 24).tobytes(), 32)
    image, _ = image_files.picture(io.BytesIO(wide), (0, 255 * 2**24))
    np.testing.assert_array_equal(image_files.as_bytes(image, 1), GRAY)
    floats = tiff(((255 - GRAY) / 255).astype("<f4").tobytes(), 32, photometric=0, kind=3)
    image, _ = image_files.picture(io.BytesIO(floats), (0, 1))
    np.testing.assert_array_equal(image_files.as_bytes(image, 1), GRAY)


def test_sets_of_an_earlier_version_are_decoded_as_before(tmp_path, capsys):
    """Indexed before the version of decoding was recorded: no orientation, hidden colours."""
    files = {"a": turned("PNG", 6), "b": saved(np.dstack([RGB, ALPHA]), "PNG")}
    for key, data in files.items():
        with tarfile.open(tmp_path / f"{key}.tar", "w") as archive:
            info = tarfile.TarInfo(f"{key}.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    adopt_command.main([str(tmp_path)])
    path = tmp_path / "dataset.json"
    new = Data(str(tmp_path))
    about = json.loads(path.read_text())
    del about["sample"]["decoding"]
    about["fingerprint"] = None
    path.write_text(json.dumps(about))
    capsys.readouterr()
    old = Data(str(tmp_path))
    assert "indexed by an earlier version" in (said := capsys.readouterr().out)
    assert f"distgan index {tmp_path}" in said and old.fingerprint != new.fingerprint
    seen = {s.key(0): old.decode(s, [0])[0].permute(1, 2, 0).numpy()
            for s in (old.train, old.validation)}  # fmt: skip
    np.testing.assert_array_equal(seen["a"], RGB)
    np.testing.assert_array_equal(seen["b"], RGB)
    adopt_command.main([str(tmp_path)])
    assert Data(str(tmp_path)).fingerprint == new.fingerprint
    assert "indexed by an earlier version" not in capsys.readouterr().out
