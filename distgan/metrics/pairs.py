"""Products of all pairs of rows of several sets, computed once for every number that needs them:
the sums of the kernel distance, nearest neighbours, the balls of precision and recall.

Rows stand in parts, the pairs of two parts are cut into blocks of fixed size, and a block is one
product in float64 on one thread. Processes and threads share out the blocks; sums are added up in
the order of the blocks, smallest distances and counts need no order. So not a bit depends on how
many computed it.

Products are taken of what is left of the rows when a common centre is taken off: distances come of
them without cancellation (exact to 1e-16 of the rows' size, where differences would be ten times as
slow), and the products of the rows themselves by adding what was taken off.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

ROWS = {"cpu": 1024, "cuda": 4096}  # of a block: 2 x 16 MB of 2,048 features, and 8 MB of products
_EDGE = 1e-12  # a point this near to the edge of a ball, relative, is on it: rounding is less

Part = tuple[torch.Tensor, torch.Tensor]  # features [n, d]; the numbers of those that belong to it
Union = tuple[int, ...]  # numbers of parts


@dataclass(frozen=True)
class Share:
    """The blocks of one process: every `world`-th. `total` adds a tensor up over processes, in
    place, `gather` returns what each process has, `advance` counts blocks of all processes.
    """

    rank: int = 0
    world: int = 1
    threads: int = 1
    device: str = "cpu"
    total: Callable[[torch.Tensor], torch.Tensor] = lambda x: x
    gather: Callable[[Any], list[Any]] = lambda x: [x]
    advance: Callable[[int], None] = lambda n: None


ALONE = Share()


@dataclass(frozen=True)
class Comparison:
    """The rows of parts `a` against those of parts `b`; `balls`: for precision and recall, too."""

    a: Union
    b: Union
    balls: bool = False


@dataclass(frozen=True)
class KernelSums:
    """The kernel of each row of a and of b with the other rows of its set, and with those of the
    other set, added up.
    """

    own: torch.Tensor
    other: torch.Tensor
    across: torch.Tensor
    back: torch.Tensor


class Pairs:
    """All pairs that `comparisons`, and `nearest` (from, to), ask for.

    `k`: to which neighbour the balls reach. Collective, if `share` is.
    """

    def __init__(
        self,
        parts: list[Part],
        comparisons: list[Comparison],
        nearest: Iterable[tuple[Union, Union]] = (),
        k: int = 1,
    ):
        self.parts, self.comparisons, self._nearest = parts, comparisons, list(nearest)
        self.k, self._sizes = k, [len(numbers) for _, numbers in parts]
        first = [compared for one in comparisons if one.balls for compared in (one.a, one.b)]
        self._balls = {pair for union in first for pair in _ordered(union, union)}
        needed = {pair for one in comparisons for pair in _ordered(one.a + one.b, one.a + one.b)}
        needed |= {pair for one in self._nearest for pair in _ordered(*one)}
        again = {pair for one in comparisons if one.balls for pair in _ordered(one.a, one.b)}
        self._rounds = [sorted(self._balls), sorted(needed - self._balls | again)]
        self._sums: dict[tuple[int, int], torch.Tensor] = {}
        self._least: dict[tuple[int, int], torch.Tensor] = {}
        self._limits: list[dict[int, torch.Tensor]] = []
        self._counts: list[dict[tuple[str, int], torch.Tensor]] = []

    def blocks(self, device: str = "cpu") -> int:
        """Return how many blocks there are."""
        return sum(len(self._blocks(pairs, _rows_of(device))) for pairs in self._rounds)

    # ---- results
    def sums(self, number: int) -> KernelSums:
        """Return the sums of a comparison."""
        a, b = self.comparisons[number].a, self.comparisons[number].b
        return KernelSums(*(self._added(*of) for of in ((a, a), (b, b), (a, b), (b, a))))

    def counts(self, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return of a comparison with balls: the balls of a around each row of b, and which rows of
        a are inside of a ball of b, and which have a row of b in their own.
        """
        one, found = self.comparisons[number], self._counts[number]
        return (
            torch.cat([found["around", t] for t in one.b]),
            torch.cat([found["inside", s] for s in one.a]) > 0,
            torch.cat([found["near", s] for s in one.a]) > 0,
        )

    def to_nearest(self, number: int) -> torch.Tensor:
        """Return the distance of each row to the nearest one, of a pair of `nearest`."""
        start, to = self._nearest[number]
        return torch.cat([self._smallest(s, to)[:, 0] for s in start]).sqrt()

    def rows(self, union: Union, numbers: torch.Tensor) -> torch.Tensor:
        """Return features of some rows of a union, by their places in it."""
        place = torch.cat([torch.full((self._sizes[s],), s) for s in union])[numbers]
        within = torch.cat([self.parts[s][1] for s in union])[numbers]
        out = torch.empty(len(numbers), self.parts[0][0].shape[1], dtype=self.parts[0][0].dtype)
        for s in union:
            out[place == s] = self.parts[s][0][within[place == s]]
        return out

    def _added(self, a: Union, b: Union) -> torch.Tensor:
        found = []
        for s in a:
            total = torch.zeros(self._sizes[s], dtype=torch.float64)
            for t in b:
                for stretch in self._sums[s, t]:
                    total += stretch
            found.append(total)
        return torch.cat(found)

    def _smallest(self, s: int, union: Union) -> torch.Tensor:
        """[n, k]: the squares of the distances of part s to the nearest k rows of a union."""
        return torch.cat([self._least[s, t] for t in union], 1).sort(1).values

    # ---- work
    @torch.no_grad()
    def compute(self, share: Share = ALONE) -> "Pairs":
        """Compute every block, with all processes of `share`."""
        size, threads = _rows_of(share.device), torch.get_num_threads()
        self._centre = self._find_centre()
        self._load = functools.lru_cache(2 + 2 * share.threads)(self._read)
        workers = ThreadPoolExecutor(
            share.threads, initializer=torch.set_num_threads, initargs=(1,)
        )
        self._counts = [
            {
                (name, s): torch.zeros(self._sizes[s], dtype=torch.float64)
                for name, union in (("around", one.b), ("inside", one.a), ("near", one.a))
                for s in union
                if one.balls
            }
            for one in self.comparisons
        ]
        try:
            with workers:
                for number, pairs in enumerate(self._rounds):
                    self._round(number, self._blocks(pairs, size), workers, share, size)
        finally:
            torch.set_num_threads(threads)  # of threads to come: a thread has its own number
            del self._load, self._centre
        return self

    def _round(
        self,
        number: int,
        blocks: list[tuple[tuple[int, int], tuple[int, int]]],
        workers: ThreadPoolExecutor,
        share: Share,
        size: int,
    ) -> None:
        """Compute the blocks of one round; the second knows the balls that the first found."""
        sums: dict[tuple[int, int], torch.Tensor] = {}
        least: dict[tuple[int, int], torch.Tensor] = {}
        for (s, _), (t, _) in blocks:
            for x, y in ((s, t), (t, s)):
                if (x, y) not in sums and (x, y) not in self._sums:
                    stretches = -(-self._sizes[y] // size)
                    sums[x, y] = torch.zeros(stretches, self._sizes[x], dtype=torch.float64)
        mine = blocks[share.rank :: share.world]
        work = functools.partial(self._block, number, share.device, size)
        for (one, other), (rows, columns, counts) in zip(
            mine, workers.map(work, mine), strict=True
        ):
            for (x, i), (y, j), (total, near) in ((one, other, rows), (other, one, columns)):
                where = slice(i * size, i * size + size)
                if total is not None and (x, y) in sums:
                    sums[x, y][j, where] = total
                if near is not None:
                    kept = least.setdefault(
                        (x, y), torch.full((self._sizes[x], self.k), torch.inf, dtype=near.dtype)
                    )
                    kept[where] = _k_least(torch.cat([kept[where], near], 1), self.k)
            for (comparison, name, (x, i)), count in counts.items():
                self._counts[comparison][name, x][i * size : i * size + size] += count
            share.advance(share.world)
        self._sums |= {key: share.total(value) for key, value in sums.items()}
        everybodys = share.gather(least)
        for key in sorted({key for of in everybodys for key in of}):
            each = [of[key] for of in everybodys if key in of]
            self._least[key] = _k_least(torch.cat(each, 1), self.k)
        if number:
            for values in self._counts:
                for value in values.values():
                    share.total(value)
        else:
            self._limits = [
                {
                    s: workers.submit(self._limit, s, union).result()
                    for union in (one.a, one.b)
                    for s in union
                }
                if one.balls
                else {}
                for one in self.comparisons
            ]

    def _limit(self, s: int, union: Union) -> torch.Tensor:
        """[n]: the square of the radius of each row's ball, and what rounding may add to it."""
        sizes = [
            self._rows(s, start, 1024).square().sum(1) for start in range(0, self._sizes[s], 1024)
        ]
        radius = self._smallest(s, union)[:, self.k - 1]
        return radius * (1 + _EDGE) + torch.cat(sizes) * (_EDGE / 10)

    def _block(
        self, number: int, device: str, size: int, block: tuple[tuple[int, int], tuple[int, int]]
    ) -> tuple[Any, Any, dict[Any, torch.Tensor]]:
        """Return (sums, smallest distances) of the rows and of the columns of a block, and counts
        by comparison, name and part.
        """
        (s, i), (t, j) = block
        (x, x_size, x_centre), (y, y_size, y_centre) = (
            self._load(part, stretch, size, device) for part, stretch in block
        )
        products = x @ y.T
        itself = (s, i) == (t, j)
        sums: list[Any] = [None, None]
        if not number or (s, t) not in self._balls:
            kernel = products + x_centre[:, None]
            kernel += y_centre + self._centre.square().sum().to(kernel.device)
            kernel = kernel.div_(x.shape[1]).add_(1).pow_(3)
            if itself:
                kernel.fill_diagonal_(0)
            sums = [kernel.sum(1).cpu(), None if itself else kernel.sum(0).cpu()]
            del kernel
        squares = products.mul_(-2).add_(x_size[:, None]).add_(y_size).clamp_(min=0)
        if itself:
            squares.fill_diagonal_(torch.inf)
        near = [
            _to_zero(_k_least(squares, self.k, along), lengths).cpu()
            if self._wanted(number, *pair)
            else None
            for along, lengths, pair in ((1, x_size, (s, t)), (0, y_size, (t, s)))
        ]
        if itself:
            near[1] = None
        counts: dict[Any, torch.Tensor] = {}
        for c, one in enumerate(self.comparisons if number else ()):
            for real, fake, of in (((s, i), (t, j), squares), ((t, j), (s, i), squares.T)):
                if one.balls and real[0] in one.a and fake[0] in one.b:
                    around, inside = (
                        self._limits[c][part][k * size : k * size + size].to(of.device)
                        for part, k in (real, fake)
                    )
                    within = of <= around[:, None]
                    counts[c, "around", fake] = within.sum(0).double().cpu()
                    counts[c, "near", real] = within.any(1).double().cpu()
                    counts[c, "inside", real] = (of <= inside).any(1).double().cpu()
        return (sums[0], near[0]), (sums[1], near[1]), counts

    def _wanted(self, number: int, s: int, t: int) -> bool:
        """Return whether smallest distances from part s to part t are needed of this round."""
        if (min(s, t), max(s, t)) in self._balls:
            return not number
        return any(s in start and t in to for start, to in self._nearest)

    def _blocks(
        self, pairs: list[tuple[int, int]], size: int
    ) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Return the blocks of pairs of parts: (part, stretch) twice."""
        return [
            ((s, i), (t, j))
            for s, t in pairs
            for i in range(-(-self._sizes[s] // size))
            for j in range(i if s == t else 0, -(-self._sizes[t] // size))
        ]

    def _find_centre(self) -> torch.Tensor:
        """[d]: about the middle of the rows; by NumPy, whose order of adding is always the same."""
        features, numbers = self.parts[0]
        some = features[numbers[:8192]].numpy()
        return torch.from_numpy(some.sum(0, dtype=np.float64) / max(len(some), 1))

    def _rows(self, part: int, start: int, size: int) -> torch.Tensor:
        features, numbers = self.parts[part]
        return features[numbers[start : start + size]].double().sub_(self._centre)

    def _read(self, part: int, stretch: int, size: int, device: str) -> tuple[torch.Tensor, ...]:
        """Return a stretch of rows without the centre, the squares of their lengths, and their
        products with the centre.
        """
        rows = self._rows(part, stretch * size, size).to(device)
        return rows, rows.square().sum(1), rows @ self._centre.to(device)


def _rows_of(device: str) -> int:
    return ROWS[torch.device(device).type]


def _ordered(a: Union, b: Union) -> Iterator[tuple[int, int]]:
    return ((min(s, t), max(s, t)) for s in a for t in b)


def _to_zero(squares: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Squares of distances [n, k] with 0 for those that are rounding: rows that are equal."""
    return squares.masked_fill_(squares <= lengths[:, None] * (_EDGE / 10), 0)


def _k_least(values: torch.Tensor, k: int, along: int = 1) -> torch.Tensor:
    """[n, k]: the smallest of each row, in order, infinity where there are fewer; or of columns."""
    if k == 1:
        return values.amin(along)[:, None]
    found = values.topk(min(k, values.shape[along]), along, largest=False).values
    found = found if along else found.T
    return torch.nn.functional.pad(found, (0, k - found.shape[1]), value=torch.inf)
