"""python relocate.py SWEEP: make a copy of the folder `sweep` believe that it was made where it
lies now.

Ledger, members.json, submission.json, job.json … hold absolute folders of runs
(/home/user/project/sweep/…), and so does each pickle. In text they are replaced; a pickle holds the
length of its strings, so there the frame and the string are written anew, without importing what it
refers to.
"""

import pickle
import struct
import sys
from pathlib import Path

OLD = b"/home/user/project/sweep"


def moved(data: bytes, new: bytes) -> bytes:
    """A pickle of protocol 4 or 5, in one frame, with short strings (below 256 bytes).

    PROTO n, FRAME <8 bytes of length>, opcodes.
    """
    assert (
        data[0:1] == pickle.PROTO
        and data[2:3] == pickle.FRAME
        and len(data) == 11 + struct.unpack("<Q", data[3:11])[0]
    )
    body, at = data[11:], 0
    while (at := body.find(OLD, at)) >= 0:
        assert body[at - 2 : at - 1] == pickle.SHORT_BINUNICODE
        size = body[at - 1]
        text = body[at : at + size].replace(OLD, new)
        head = (
            pickle.SHORT_BINUNICODE + bytes([len(text)])
            if len(text) < 256
            else pickle.BINUNICODE + struct.pack("<I", len(text))
        )
        body, at = body[: at - 2] + head + text + body[at + size :], at - 2 + len(head) + len(text)
    return data[:2] + pickle.FRAME + struct.pack("<Q", len(body)) + body


def relocate(sweep: Path) -> None:
    new = str(sweep.resolve()).encode()
    for path in sorted(sweep.rglob("*")):
        if path.is_file() and path.suffix not in (".safetensors", ".pt", ".png"):
            data = path.read_bytes()
            if OLD in data:
                path.write_bytes(
                    moved(data, new) if path.suffix == ".pkl" else data.replace(OLD, new)
                )


if __name__ == "__main__":
    relocate(Path(sys.argv[1]))
