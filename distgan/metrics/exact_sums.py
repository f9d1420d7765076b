"""Mean and covariance whose every bit is the same however the rows are shared out and ordered: over
ranks, chunks, threads.

A feature is rounded to 2^-26 and cut in two slices, hi on a grid of 2^-13 and lo, at most 2^-14, on
one of 2^-26. With |x| < 16 a product hi hi has 34 bits, and a sum of 2^19 of them 53: float64 holds
every partial sum exactly, so no addition rounds and their order cannot matter. The same holds for
hi lo and lo lo. Rounding a feature to 2^-26 moves a distance by about 1e-9 (measured on 1,003 rows
of 768 features).
"""

import torch

from distgan.metrics.frechet import Moments, add_products, mirrored

LARGEST = 16.0
MOST = 2**19


class Sums:
    """Sums over rows of d features below `largest`, a power of two.

    `parts` are the tensors to add up over ranks. For more than 16 the grids are as much coarser.
    """

    def __init__(self, d: int, largest: float = LARGEST):
        self.n, self.largest = 0, largest
        self._hi, self._lo = (grid * LARGEST / largest for grid in (2.0**13, 2.0**26))
        self.parts = [
            torch.zeros(d, dtype=torch.float64),
            *(torch.zeros(d, d, dtype=torch.float64) for _ in range(3)),
        ]  # x; hi hi, hi lo, lo lo

    def add(self, rows: torch.Tensor) -> None:
        """rows: [n, d]. ValueError where they are not finite, too large, or too many for sums that
        are exact.
        """
        self.require(rows)
        x = rows.double()
        if self.n + len(x) > MOST:
            raise ValueError(f"more than {MOST:,} rows: sums would not be exact any more")
        x = (x * self._lo).round() / self._lo
        hi = (x * self._hi).round() / self._hi
        lo = x - hi
        self.n += len(x)
        self.parts[0] += x.sum(0)
        add_products(self.parts[1], hi)
        self.parts[2] += hi.T @ lo
        add_products(self.parts[3], lo)

    def require(self, rows: torch.Tensor) -> None:
        """ValueError where they are not finite or too large for sums that are exact."""
        largest = float(rows.double().abs().max()) if rows.numel() else 0.0
        if not largest < self.largest:
            raise ValueError(
                f"features reach {largest:.3g}; sums are exact for finite ones below"
                f" {self.largest:g}: compare features instead of moments (path=features)"
            )

    def __iadd__(self, other: "Sums") -> "Sums":
        """The rows of the other set as well."""
        if self.n + other.n > MOST:
            raise ValueError(f"more than {MOST:,} rows: sums would not be exact any more")
        self.n += other.n
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            mine += theirs
        return self

    def moments(self) -> Moments:
        """Mean and covariance of at least 2 rows.

        What is subtracted is formed in one fixed order, from sums without rounding.
        """
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 rows, found {self.n}")
        x, high, mixed, low = self.parts
        mean = x / self.n
        second = mirrored(high) + (mixed + mixed.T) + mirrored(low)
        return Moments(self.n, mean, (second - torch.outer(x, mean)) / (self.n - 1))
