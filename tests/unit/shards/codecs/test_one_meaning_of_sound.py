"""A sound file means the same to `distgan shard audio` and, in tars, to `distgan index`."""

import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distgan.core.arguments import Arguments
from distgan.core.errors import DataError
from distgan.data.dataset import Data
from distgan.evaluation.audio.sets import Folders
from distgan.shards.adopt import command as adopt_command
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.sources.audio import Source

RATE, FRAMES = 8000, 4000
FORMAT = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)


def signal(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9000, 9000, FRAMES).astype("<i2")


def wav(
    seed: int, announced: int | None = None, before: bytes = b"", held: int = 2 * FRAMES
) -> bytes:
    sound = signal(seed).tobytes()[:held]
    data = b"data" + struct.pack("<I", len(sound) if announced is None else announced) + sound
    body = b"WAVE" + FORMAT + before + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def other(seed: int, form: str, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, signal(seed), RATE, format=form, subtype=subtype)
    return file.getvalue()


STREAM = audio_codec.UNKNOWN_LENGTH
WHOLE = {  # name: (file of a seed, whether `index` takes it as it is)
    "plain.wav": (wav, True),
    "stream.wav": (lambda seed: wav(seed, STREAM), True),
    "late.wav": (
        lambda seed: wav(seed, before=b"bext" + struct.pack("<I", 9000) + bytes(9000)),
        True,
    ),
    "odd.wav": (lambda seed: wav(seed, before=b"LIST" + struct.pack("<I", 5) + b"INFOx\0"), True),
    "rf64.wav": (lambda seed: other(seed, "RF64"), False),
    "deep.wav": (lambda seed: other(seed, "WAV", "PCM_24"), False),
    "aiff.aiff": (lambda seed: other(seed, "AIFF"), False),
    "au.au": (lambda seed: other(seed, "AU"), False),
}
LAST = 1001  # bytes that the end of a file lacks
BROKEN = {  # name: (file of a seed, why)
    "cut.wav": (lambda seed: wav(seed, 2 * FRAMES, held=5000), "is cut: its header announces 8000"),
    "late-cut.wav": (lambda seed: wav(seed, before=b"bext" + struct.pack("<I", 9000) + bytes(9000))
                     [:-LAST], "is cut: its header announces 8000 bytes of sound after byte 9052"),
    "nothing.wav": (lambda seed: wav(seed, 0), "announces no sound, though 8000 bytes follow"),
    "cut-rf64.wav": (lambda seed: other(seed, "RF64")[:-LAST], "is cut"),
    "cut.aiff": (lambda seed: other(seed, "AIFF")[:-LAST], "is cut"),
    "cut.au": (lambda seed: other(seed, "AU")[:-LAST], "is cut"),
    "cut.flac": (lambda seed: other(seed, "FLAC")[:-LAST], "cannot be read as sound"),
}  # fmt: skip


def pair(root: Path, name: str, made) -> Source:
    for side, seed in (("input", 1), ("target", 1)):
        (root / side).mkdir(parents=True)
        (root / side / name).write_bytes(made(seed))
    args = dict.fromkeys(("input", "target", "segment")) | {"folder": str(root)}
    return Source(Arguments(**args, rate=RATE, payload="wav", align=False))


def adopted(root: Path, name: str, made, capsys) -> tuple[dict, str]:
    root.mkdir()
    field = name.rpartition(".")[2]
    for k in range(2):
        with tarfile.open(root / f"{k}.tar", "w") as archive:
            for side in ("input", "target"):
                data = made(1)
                info = tarfile.TarInfo(f"{k}.{side}.{field}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    capsys.readouterr()
    adopt_command.main([str(root)])
    return json.loads((root / "dataset.json").read_text())["sample"], capsys.readouterr().out


@pytest.mark.parametrize("name", WHOLE)
def test_whole_sounds_are_the_same_by_both_doors(tmp_path, name, capsys):
    made, taken = WHOLE[name]
    source = pair(tmp_path / "files", name, made)
    assert source.check(1).issues == []
    values, _ = audio_codec.read_wav(source.make(0)["input.wav"])
    np.testing.assert_array_equal(values[:, 0], signal(1))
    if name.endswith(".wav"):
        sample, said = adopted(tmp_path / "tars", name, made, capsys)
        assert (sample["kind"] == "pair") == taken
        if taken:
            data = Data(str(tmp_path / "tars"))
            np.testing.assert_array_equal(data.decode(data.train, [0])[0, 0].numpy(), signal(1))
            crop = data.decode(data.train, [0], 100, np.array([0.5]))[0, 0].numpy()
            np.testing.assert_array_equal(crop, signal(1)[1950:2050])
        else:
            assert "2 pairs cannot be read" in said and "distgan shard audio OUT" in said


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_does_not_hold_what_it_announces_is_refused_by_both(tmp_path, name, capsys):
    made, why = BROKEN[name]
    (issue,) = pair(tmp_path / "files", name, made).check(1).issues
    assert why in issue.reason and not issue.usable
    if name != "cut.flac":  # its header is whole
        with pytest.raises(DataError, match=why):
            Folders(tmp_path / "files" / "input", tmp_path / "files" / "target")
    if name.endswith(".wav") and name != "cut-rf64.wav":
        sample, said = adopted(tmp_path / "tars", name, made, capsys)
        assert sample["kind"] == "unknown" and why in said


def test_floats_of_the_scale_of_integers_are_refused(tmp_path):
    def made(seed: int) -> bytes:
        return audio_codec.write_wav(signal(seed).astype(np.float32), RATE)

    (issue,) = pair(tmp_path, "x.wav", made).check(1).issues
    assert "integers in a file of floats" in issue.reason and not issue.usable
