"""Encode sound as the bytes of a tar member, decode it, and load any sound file.

WAV with 16-bit integers or 32-bit floats, so that a crop can be read without the rest
(`Layout.span`; distgan.data.samples does so), or FLAC with 16 bits.
"""

import contextlib
import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soundfile

from distgan.core.errors import DataError
from distgan.core.reading import open_regular

UNKNOWN_LENGTH = 0xFFFFFFFF  # in the header of a file that was written to a pipe
FULL_SCALE = 32768  # 16-bit integers are this many steps of 1
SOUND_RATES = (4_000, 1_000_000)  # Hz; signals outside this range are not recorded sound
WAVE_FIELDS = ("wav", "flac")
HEAD_BYTES = 4096  # a WAV header with its metadata is usually far smaller
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_KINDS: dict[tuple[int, int], np.dtype] = {
    (_PCM, 16): np.dtype("<i2"),
    (_FLOAT, 32): np.dtype("<f4"),
}


@dataclass(frozen=True)
class Layout:
    """The position and type of the values in a WAV file."""

    start: int  # byte of the first value
    frames: int
    channels: int
    rate: int  # Hz
    dtype: np.dtype  # little-endian int16 or float32

    @property
    def frame_bytes(self) -> int:
        return self.dtype.itemsize * self.channels

    def span(self, first: int, frames: int) -> tuple[int, int]:
        """Return the bytes [from, to) of the file that hold `frames` frames from `first` on."""
        start = self.start + first * self.frame_bytes
        return start, start + frames * self.frame_bytes


def write_wav(samples: np.ndarray, rate: int) -> bytes:
    """Encode int16 or float32 [frames] or [frames, channels] as a WAV file.

    Floats are kept unchanged, also beyond ±1.
    """
    dtype = np.dtype("<i2") if samples.dtype == np.int16 else np.dtype("<f4")
    if samples.dtype not in (np.int16, np.float32):
        raise TypeError(f"samples of {samples.dtype}; allowed are int16 and float32")
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    data = np.ascontiguousarray(samples, dtype).tobytes()
    frame = dtype.itemsize * channels
    kind = _PCM if dtype.kind == "i" else _FLOAT
    form = b"fmt " + struct.pack(
        "<IHHIIHH", 16, kind, channels, rate, rate * frame, frame, dtype.itemsize * 8
    )
    if kind == _FLOAT:  # the standard requires it for values that are not integers
        form += b"fact" + struct.pack("<II", 4, len(data) // frame)
    return (
        b"RIFF"
        + struct.pack("<I", 4 + len(form) + 8 + len(data))
        + b"WAVE"
        + form
        + b"data"
        + struct.pack("<I", len(data))
        + data
    )


def wav_layout(head: bytes, size: int) -> Layout:
    """Parse the header at the beginning of a WAV file of `size` bytes.

    ValueError if it is not a WAV file with 16-bit integers or 32-bit floats.
    """
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        raise ValueError("not a WAV file")
    at, form = 12, None  # form: (kind, bits, channels, rate)
    while at + 8 <= len(head):
        name, length = head[at : at + 4], int.from_bytes(head[at + 4 : at + 8], "little")
        if name == b"fmt " and at + 24 <= len(head):
            kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", head, at + 8)
            if kind == _EXTENSIBLE and length >= 26:
                kind = int.from_bytes(head[at + 32 : at + 34], "little")
            form = (kind, bits, channels, rate)
        elif name == b"data":
            if length == UNKNOWN_LENGTH:  # written to a pipe: up to the end of the file
                length = size - at - 8
            if form is None or (form[0], form[1]) not in _KINDS or form[2] < 1:
                raise ValueError(
                    "WAV of an unsupported kind; allowed are 16-bit integers and 32-bit floats"
                )
            dtype = _KINDS[form[0], form[1]]
            if cut := _disagreement(at + 8, length, size):
                raise ValueError(f"WAV {cut}")
            return Layout(at + 8, length // (dtype.itemsize * form[2]), form[2], form[3], dtype)
        at += 8 + length + length % 2
    raise HeaderBeyond(at)


def read_layout(read: Callable[[int, int], bytes], size: int) -> Layout:
    """Return the layout of a WAV file of `size` bytes; `read(start, stop)` returns some of them.

    Metadata before the sound may have any length. ValueError as `wav_layout`.
    """
    most = HEAD_BYTES
    while True:
        try:
            return wav_layout(read(0, min(most, size)), size)
        except HeaderBeyond as error:
            if most >= size:
                raise
            most = error.at + HEAD_BYTES


class HeaderBeyond(ValueError):
    """The header of a WAV file goes on at byte `at`, beyond what was given."""

    def __init__(self, at: int):
        super().__init__("WAV without sound")
        self.at = at


def _disagreement(start: int, announced: int, size: int) -> str:
    """Describe how a file of `size` bytes does not hold what its header announces, or return ""."""
    if start + announced > size:
        return (
            f"of {size} bytes that is cut: its header announces {announced} bytes of sound after"
            f" byte {start}"
        )
    if not announced and size > start:
        return (
            f"whose header announces no sound, though {size - start} bytes follow: it was never"
            " completed. Write the file again, as with ffmpeg -i IN.wav OUT.wav"
        )
    return ""


def _stated_sound(file: BinaryIO) -> tuple[int, int] | None:
    """Return (first byte, bytes) of the sound that the header of WAV, RF64, AIFF or AU announces;
    None for other formats and for streams, whose length is unknown.
    """
    head = file.read(12)
    if head[:4] == b".snd":
        start, length = struct.unpack(">II", head[4:12])
        return None if length == UNKNOWN_LENGTH else (start, length)
    order: Literal["little", "big"] = "big" if head[:4] in (b"FORM", b"RIFX") else "little"
    if head[:4] not in (b"RIFF", b"RF64", b"RIFX", b"FORM"):
        return None
    long_size = 0
    while len(chunk := file.read(8)) == 8:
        length = int.from_bytes(chunk[4:], order)
        if chunk[:4] == b"ds64" and length >= 16:
            long_size = int.from_bytes(file.read(16)[8:], "little")
            file.seek(length + length % 2 - 16, 1)
            continue
        if chunk[:4] in (b"data", b"SSND"):
            if length == UNKNOWN_LENGTH:
                length = long_size
                if not length:
                    return None
            return file.tell(), length
        file.seek(length + length % 2, 1)
    return None


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[soundfile.SoundFile]:
    """Open any sound file that libsndfile reads; DataError names one that it cannot read, and one
    that does not hold what its header announces, of which libsndfile would read the rest.
    """
    try:
        with open_regular(Path(path), links=True) as file:
            stated, size = _stated_sound(file), file.seek(0, 2)
            if stated and (cut := _disagreement(*stated, size)):
                raise DataError(f"{path} is a file {cut}")
        with soundfile.SoundFile(path) as sound:
            yield sound
    except (soundfile.LibsndfileError, OSError, TypeError) as error:
        raise DataError(f"{path} cannot be read as sound: {error}") from error


def read_wav(data: bytes) -> tuple[np.ndarray, int]:
    """Decode a WAV file into (int16 or float32 [frames, channels], rate in Hz)."""
    layout = wav_layout(data, len(data))
    values = np.frombuffer(data, layout.dtype, layout.frames * layout.channels, layout.start)
    return values.reshape(layout.frames, layout.channels), layout.rate


def write_flac(samples: np.ndarray, rate: int) -> bytes:
    """Encode int16 [frames] or [frames, channels] as a FLAC file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def read_flac(data: bytes, first: int = 0, frames: int = -1) -> tuple[np.ndarray, int]:
    """Decode `frames` frames of a FLAC file from `first` on (-1: to the end).

    Return (int16 [frames, channels], rate in Hz).
    """
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        if file.format != "FLAC":
            raise ValueError(f"format {file.format}, expected FLAC")
        # Of a constant, a block of 65,535 frames is some 14 bytes.
        if file.frames > 10_000 * len(data):
            raise ValueError(f"declares {file.frames} frames in {len(data)} bytes")
        file.seek(first)
        return file.read(frames, dtype="int16", always_2d=True), file.samplerate


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Convert float in [-1, 1) to int16: rounded, clipped beyond the range."""
    return np.clip(
        np.rint(np.asarray(samples, np.float64) * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1
    ).astype(np.int16)


def to_float(samples: np.ndarray) -> np.ndarray:
    """Convert int16 to float32 in [-1, 1); float32 is returned unchanged."""
    return (
        samples.astype(np.float32) / FULL_SCALE
        if samples.dtype.kind == "i"
        else samples.astype(np.float32, copy=False)
    )


def load(path: str | Path, rate: int | None = None) -> tuple[np.ndarray, int]:
    """Load any sound file that libsndfile reads (wav, flac, ogg, mp3 …), channels averaged.

    Return (float32 [frames], rate in Hz), with `rate` resampled to it (band-limited, torchaudio).
    DataError names the file.
    """
    with opened(path) as sound:
        file_rate = sound.samplerate
        samples = sound.read(dtype="float32", always_2d=True)
    samples = samples.mean(1)
    if rate and rate != file_rate:
        return resample(samples, file_rate, rate), rate
    return samples, file_rate


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Resample float32 [frames] from `rate` to `new_rate` (Hz)."""
    import torch
    from torchaudio.functional import resample as band_limited

    return band_limited(
        torch.from_numpy(np.ascontiguousarray(samples, np.float32)),
        rate,
        new_rate,
        lowpass_filter_width=32,
    ).numpy()
