"""The image sizes that distgan's image recipes train on. Imports no torch.

Their networks start from a grid whose shorter side is 4 and double it, so an image is such a grid
times a power of two.
"""

from typing import NamedTuple, Protocol

SIDES = (16, 32, 64, 128, 256)  # of the shorter side
ASPECT = 4  # the longer side is at most this many times the shorter one
RULE = (
    "the shorter side must be 16, 32, 64, 128 or 256 pixels, the longer side a multiple of a"
    f" quarter of it, and at most {ASPECT} times as long"
)


def trainable(height: int, width: int) -> bool:
    """Return whether distgan's image recipes have networks for images of this size."""
    short, long = sorted((height, width))
    return short in SIDES and long % (short // 4) == 0 and long <= ASPECT * short


def grid(height: int, width: int) -> tuple[int, int]:
    """Return (height, width) of the grid that networks of this size start from: 4x4 of squares."""
    quarter = min(height, width) // 4
    return height // quarter, width // quarter


def doublings(height: int, width: int) -> int:
    """Return how often the grid is doubled to reach this size: 4 for 64x64."""
    return (min(height, width) // 4).bit_length() - 1


class _Allows(Protocol):
    def __call__(self, height: int, width: int) -> bool: ...


class SizeRule(NamedTuple):
    """The image sizes that a recipe trains on: a function of (height, width), and in words."""

    allows: _Allows
    words: str


ANY = SizeRule(lambda height, width: True, "")
DOUBLED = SizeRule(trainable, RULE)
