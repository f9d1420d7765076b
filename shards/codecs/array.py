"""Encode arrays of numbers as .npy, the bytes of a tar member, and decode them.

The header is checked before anything of the stated size is made, and nothing is unpickled.
"""

import contextlib
import functools
import io
from collections.abc import Iterator

import numpy as np


def encode(values: np.ndarray) -> bytes:
    """Encode an array with NumPy's header, in C order."""
    return _header(values.dtype.str, values.shape) + np.ascontiguousarray(values).tobytes()


@contextlib.contextmanager
def one_error() -> Iterator[None]:
    """Raise ValueError for what NumPy raises on a header that it did not write; not for OSError."""
    try:
        yield
    except (ValueError, OSError):
        raise
    except Exception as error:  # OverflowError, TypeError, IndexError, TokenError, MemoryError …
        raise ValueError(f"its header: {type(error).__name__}: {error}") from None


@one_error()
def header(data: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Return (shape, type) of a .npy file; ValueError unless it has exactly these values."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    whole = all(type(n) is int for n in shape)  # True is a number too
    if dtype.hasobject or not whole or len(data) - file.tell() != size:
        raise ValueError(
            f"an array of {dtype} {list(shape)} in {len(data) - file.tell()} bytes of values"
        )
    return shape, dtype


def decode(data: bytes, dtype: np.dtype, *shapes: tuple[int, ...]) -> np.ndarray:
    """Decode an array of this type and of one of the shapes; ValueError if it has others."""
    shape = shapes[0]
    start = _header(dtype.str, shape)
    if len(data) == len(start) + int(np.prod(shape)) * dtype.itemsize and data.startswith(start):
        return np.frombuffer(data, dtype, offset=len(start)).reshape(shape)
    # from another program: another header, or another array
    found = header(data)
    if found[1] != dtype or found[0] not in shapes:
        raise ValueError(f"an array of {found[1]} {list(found[0])}, expected {dtype} {list(shape)}")
    return np.load(io.BytesIO(data), allow_pickle=False)


def vector(data: bytes, size: int) -> np.ndarray:
    """Decode float32 [size]; ValueError if it is another array or has NaN or infinity."""
    values = decode(data, np.dtype(np.float32), (size,))
    for place in np.flatnonzero(~np.isfinite(values))[:1].tolist():
        raise ValueError(f"value {place} of the vector is {values[place]}")
    return values


@functools.lru_cache
def _header(descr: str, shape: tuple[int, ...]) -> bytes:
    """Return the header that NumPy writes before an array in C order."""
    file = io.BytesIO()
    about = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue()
