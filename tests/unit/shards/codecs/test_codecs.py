"""Payloads come back as they went in, and what is something else is refused."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from bounds import bounded
from PIL import EpsImagePlugin, Image

import distgan
from distgan.core.arguments import Command
from distgan.core.errors import ConfigError, DataError
from distgan.evaluation.sets import folders
from distgan.outputs import image_grid
from distgan.report import media
from distgan.shards.codecs import array, image_files
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.codecs import image as image_codec


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("payload", ["png", "raw"])
@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_lossless_payloads_come_back(payload, shape):
    image = pixels(*shape)
    field, data = image_codec.encode(image, payload)
    out = np.zeros((8, 8, 1 if len(shape) == 2 else 3), np.uint8)
    image_codec.decode(data, field, out)
    np.testing.assert_array_equal(out.reshape(shape), image)
    with pytest.raises(ValueError, match="expected 8x9|expected uint8"):
        image_codec.decode(data, field, np.zeros((9, 8, out.shape[2]), np.uint8))


def test_raw_is_what_numpy_writes():
    file = io.BytesIO()
    np.save(file, pixels(8, 8, 3))
    assert image_codec.encode(pixels(8, 8, 3), "raw") == ("npy", file.getvalue())


def test_the_option_offers_what_there_is():
    command = Command("test", "", (image_codec.PAYLOAD,))
    assert command.parse([]).payload == "png"
    assert {
        image_codec.encode(pixels(8, 8), command.parse(["--payload", name]).payload)[0]
        for name in image_codec.FIELDS
    } == {"png", "jpg", "npy"}
    with pytest.raises(ConfigError, match="--payload: found 'webp', allowed: png, jpeg, raw"):
        command.parse(["--payload", "webp"])


def test_jpeg_comes_back_nearly():
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    field, data = image_codec.encode(smooth, "jpeg")
    out = np.zeros((64, 64, 1), np.uint8)
    image_codec.decode(data, field, out)
    assert np.abs(out[..., 0].astype(int) - smooth).max() <= 3


def test_arrays_of_others_are_read_and_wrong_ones_refused():
    file = io.BytesIO()
    np.save(file, np.asfortranarray(pixels(8, 8, 3)))
    out = np.zeros((8, 8, 3), np.uint8)
    image_codec.decode(file.getvalue(), "npy", out)
    np.testing.assert_array_equal(out, pixels(8, 8, 3))
    file = io.BytesIO()
    np.save(file, np.array([{}], object), allow_pickle=True)
    crafted = b"(" * 3000
    with pytest.raises(ValueError, match="its header: TokenError"):
        array.header(b"\x93NUMPY\x01\x00" + len(crafted).to_bytes(2, "little") + crafted)
    with pytest.raises(ValueError, match=r"an array of uint8 \[True, 1\]"):
        array.header(array.encode(np.zeros((1, 1), np.uint8)).replace(b"(1, 1)", b"(True,1)"))
    with pytest.raises(ValueError, match="an array of object"):
        image_codec.decode(file.getvalue(), "npy", out)


def test_a_member_is_opened_as_what_its_name_says():
    file = io.BytesIO()
    Image.fromarray(pixels(8, 8)).save(file, "BMP")
    with pytest.raises(SyntaxError, match="not a PNG file"):
        image_codec.decode(file.getvalue(), "png", np.zeros((8, 8, 1), np.uint8))


@pytest.mark.parametrize("shape", [(100,), (100, 2)])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_wav_comes_back_here_and_in_libsndfile(shape, dtype):
    samples = (np.random.default_rng(0).standard_normal(shape) * 3000).astype(dtype)
    data = audio_codec.write_wav(samples, 48000)
    mine, rate = audio_codec.read_wav(data)
    theirs, their_rate = soundfile.read(
        io.BytesIO(data), dtype=np.dtype(dtype).name, always_2d=True
    )
    assert rate == their_rate == 48000
    np.testing.assert_array_equal(mine, samples.reshape(100, -1))
    np.testing.assert_array_equal(theirs, mine)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_wav_of_libsndfile_is_read(subtype):
    file = io.BytesIO()
    soundfile.write(
        file,
        np.random.default_rng(0).uniform(-1, 1, (50, 2)),
        16000,
        format="WAVEX",
        subtype=subtype,
    )
    np.testing.assert_array_equal(
        audio_codec.read_wav(file.getvalue())[0],
        soundfile.read(
            io.BytesIO(file.getvalue()), dtype=audio_codec.read_wav(file.getvalue())[0].dtype.name
        )[0],
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFFxxxxWAVE",
        b"RIFFxxxxWAVEdata\4\0\0\0abcd",
        audio_codec.write_wav(np.zeros(10, np.int16), 8000)[:-1],
    ],
)
def test_what_is_no_wav_is_refused(data):
    with pytest.raises(ValueError, match="WAV"):
        audio_codec.read_wav(data)


def test_24_bits_are_refused_by_name():
    file = io.BytesIO()
    soundfile.write(file, np.zeros(10), 8000, format="WAV", subtype="PCM_24")
    with pytest.raises(ValueError, match="16-bit integers and 32-bit floats"):
        audio_codec.read_wav(file.getvalue())


def test_flac_comes_back_whole_and_in_part():
    samples = audio_codec.to_int16(np.random.default_rng(0).uniform(-1, 1, 5000))
    data = audio_codec.write_flac(samples, 16000)
    np.testing.assert_array_equal(audio_codec.read_flac(data)[0][:, 0], samples)
    np.testing.assert_array_equal(audio_codec.read_flac(data, 700, 300)[0][:, 0], samples[700:1000])


def test_any_sound_file_is_loaded_mono_and_resampled(tmp_path):
    t = np.arange(16000) / 16000
    tone = 0.5 * np.sin(2 * np.pi * 440 * t)
    soundfile.write(tmp_path / "a.ogg", np.stack([tone, tone], 1), 16000)
    samples, rate = audio_codec.load(tmp_path / "a.ogg", 8000)
    assert rate == 8000 and samples.dtype == np.float32 and samples.shape == (8000,)
    np.testing.assert_allclose(samples[100:-100], tone[::2][100:-100], atol=0.02)


def test_integers_and_floats_are_inverse():
    levels = np.arange(-32768, 32768).astype(np.int16)
    np.testing.assert_array_equal(audio_codec.to_int16(audio_codec.to_float(levels)), levels)
    assert audio_codec.to_int16(np.array([2.0, -2.0])).tolist() == [32767, -32768]


# ---- files of other formats
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def huge_png() -> bytes:
    """A small file that states 60,000 x 60,000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT"


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A file that is there as soon as Ghostscript was started."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
    (tmp_path / "bin/gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return tmp_path / "started"


@pytest.mark.parametrize(
    "content, said", [(EPS, "not an image in one of the formats"), (huge_png(), "exceeds limit")]
)
def test_what_a_picture_is_called_does_not_open_it(content, said, tmp_path, ghostscript):
    (tmp_path / "set").mkdir()
    path = tmp_path / "set/a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.png cannot be decoded: .*{said}"):
        folders.FolderImages(tmp_path / "set").decode([0])
    assert media.picture(path, 64) is None and media._size(path) == (0, 0)
    with pytest.raises((OSError, Image.DecompressionBombError), match=said):
        image_grid.load([path])
    with pytest.raises((OSError, Image.DecompressionBombError), match=said):
        image_files.picture(path)
    assert not ghostscript.exists()


def test_images_are_opened_in_one_place():
    root = Path(distgan.__file__).parents[1]
    opening = [
        path.name
        for folder in ("distgan", "launchers", "shards")
        for path in (root / folder).rglob("*.py")
        if "Image.open(" in path.read_text()
    ]
    assert opening == ["image.py"]


def test_a_pipe_called_a_picture_hangs_nothing(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with bounded(), pytest.raises(OSError, match="it is not a regular file"):
        image_files.picture(tmp_path / "a.png")
    assert media.picture(tmp_path / "a.png", 64) is None


def test_a_false_number_of_frames_is_refused():
    file = io.BytesIO()
    soundfile.write(file, np.zeros(100, np.int16), 8000, "PCM_16", format="FLAC")
    data = bytearray(file.getvalue())
    data[21] |= 0x0F  # the highest bits of the number of samples in STREAMINFO
    with pytest.raises(ValueError, match="declares"):
        audio_codec.read_flac(bytes(data))
