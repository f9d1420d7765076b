"""The score that finds the best checkpoint: a number of the validation, or a weighted total of
several. Imports no torch.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple, Self

PREFIX = "valid/"
HIGHER = ("si_sdr", "psnr")  # better the higher; of other numbers known here, the lower
LOWER = ("l1", "stft", "lsd", "adversarial", "g_loss")
_TERM = re.compile(
    r"([+-]?)(?:((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\*)?(?:valid/)?([A-Za-z_]\w*)", re.A
)
GRAMMAR = (
    "a number of the validation, or a weighted total of several, which is to be low:"
    " l1+0.5*stft-0.01*si_sdr"
)


class Judge(NamedTuple):
    """A total that is lower where a checkpoint is better: weight and key of each number in it."""

    terms: tuple[tuple[float, str], ...]

    @classmethod
    def of_key(cls, key: str) -> Self:
        """Return the judge by one key, as in `valid/l1`, lower is better."""
        return cls(((1.0, key),))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the judge that a setting asks for; ValueError for anything else.

        One number alone is taken in its own direction: `si_sdr` is `-si_sdr`.
        """
        text, at = re.sub(r"\s*([+*-])\s*", r"\1", text.strip()), 0
        terms: list[tuple[float, str]] = []
        while at < len(text):
            match = _TERM.match(text, at)
            if match is None or (at > 0 and not match[1]):
                raise ValueError(f"allowed is {GRAMMAR}")
            sign, weight, name = match.groups()
            value = float(weight or 1)
            if not 0 < value < math.inf:
                raise ValueError(f"the weight of {name} must be above 0 and finite")
            alone = match.end() == len(text) and not terms and not sign and not weight
            negative = sign == "-" or (alone and name in HIGHER)
            if negative != (name in HIGHER) and name in (*HIGHER, *LOWER):
                better, sign = ("higher", "-") if name in HIGHER else ("lower", "+")
                raise ValueError(
                    f"{name} is better the {better} it is, and a total is to be low: its term is"
                    f" {sign}{value:g}*{name}"
                )
            terms.append((-value if negative else value, PREFIX + name))
            at = match.end()
        if not terms:
            raise ValueError(f"allowed is {GRAMMAR}")
        return cls(tuple(terms))

    @property
    def label(self) -> str:
        """The total as people write it: `l1`, `-si_sdr`, `l1+0.5*stft`."""
        parts = (
            f"{'-' if weight < 0 else '+'}{'' if abs(weight) == 1 else f'{_exact(abs(weight))}*'}"
            f"{key.rpartition('/')[2]}"
            for weight, key in self.terms
        )
        return "".join(parts).removeprefix("+")

    @property
    def names(self) -> tuple[str, ...]:
        """The numbers that it takes, without `valid/`."""
        return tuple(key.removeprefix(PREFIX) for _, key in self.terms)

    def missing(self, numbers: Mapping[str, float]) -> list[str]:
        """Return the keys that a validation does not have."""
        return [key for _, key in self.terms if key not in numbers]

    def score(self, numbers: Mapping[str, float]) -> float:
        """Return the total of a validation that misses nothing."""
        return sum(weight * numbers[key] for weight, key in self.terms)


def _exact(weight: float) -> str:
    """Return the shortest text that is read as the same number."""
    return f"{weight:g}" if float(f"{weight:g}") == weight else repr(weight)
