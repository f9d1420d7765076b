"""Labels of a data set: can every one be read, and how many samples has each class?

All undamaged samples are examined, also with --limit: only their labels are read.
"""

from collections import Counter

from distgan.core import console
from distgan.core.worker_pool import ordered_map
from distgan.shards.audit.checks import FAIL, Check
from distgan.shards.audit.findings import Checks, Finding
from distgan.shards.audit.integrity import Integrity
from distgan.shards.audit.shard_integrity import Place, chunks, places, read
from distgan.shards.format.labels import LabelColumn, labels_of
from distgan.shards.format.manifest import DATASET

SPLITS = ("train", "validation")
SHOWN = 24  # classes of a column in the printed table


class Examiner:
    """Read the labels of chunks of samples; pickled to worker processes."""

    def __init__(self, columns: list[LabelColumn]):
        self.columns = columns
        self.fields = list(dict.fromkeys(column.field for column in columns))

    def __call__(self, chunk: list[Place]) -> list[list[int | str]]:
        return [self._classes(read(place, self.fields)) for place in chunk]

    def _classes(self, sample: dict[str, bytes]) -> list[int | str]:
        """Return for each column the number of the class, or why there is none."""
        classes: list[int | str] = []
        for column in self.columns:
            try:
                classes.append(column.class_of(sample[column.field]))
            except ValueError as error:
                classes.append(str(error))
        return classes


class LabelCounts:
    """Samples by column, class and split, and the findings about labels and classes.

    units: of the checks that apply, none where the data set has no labels
    """

    def __init__(self, files: Integrity, checks: Checks, workers: int):
        self.units: tuple[str, ...] = ()
        self.totals = {"labels": 0, "classes": 0}
        self.findings: list[Finding] = []
        self.counts: dict[
            str, dict[str, dict[str, int]]
        ] = {}  # column -> class -> split -> samples
        self._values: dict[str, list[float]] = {}
        # By place, the class of each column, or why there is none.
        self._classes: dict[str, list[int | str]] = {}
        self._columns: list[LabelColumn] = []
        chosen = places(files.shards, None)
        if not chosen:
            return
        try:
            columns = list(labels_of(files.dataset, list(read(chosen[0]))).values())
        except ValueError as error:
            detail = f"{DATASET} is damaged: {error}"
            self.findings = [Finding("dataset", FAIL, "", "", "", None, None, "", detail)]
            return
        if columns:
            self.units, self._columns = ("labels", "classes"), columns
            found = self._count(columns, chosen, checks, workers)
            for column in columns:
                self._judge(column, found[column.name], checks)

    def _count(
        self, columns: list[LabelColumn], chosen: list[Place], checks: Checks, workers: int
    ) -> dict[str, Counter[tuple[int, str]]]:
        """Return the samples of each (class, split) by column; a label without one is a finding."""
        found: dict[str, Counter[tuple[int, str]]] = {column.name: Counter() for column in columns}
        with console.bar("reading labels", len(chosen), "samples") as bar:
            at = iter(chosen)
            for results in ordered_map(Examiner(columns), chunks(chosen), workers):
                for classes in results:
                    place = next(at)
                    self._classes[str(place)] = classes
                    for column, number in zip(columns, classes, strict=True):
                        self.totals["labels"] += 1
                        if isinstance(number, str):
                            checks.judge(self.findings, "labels", "label", place, 1.0, number)
                        else:
                            found[column.name][number, place.split] += 1
                bar.advance(len(results))
        return found

    def _judge(self, column: LabelColumn, found: Counter[tuple[int, str]], checks: Checks) -> None:
        """Count the samples of each class of a column, and grade the counts."""
        counts = self.counts[column.name] = {}
        train, *_ = SPLITS
        largest = max(found[number, train] for number in range(len(column.names)))
        for number, name in enumerate(column.names):
            own = found[number, train]
            unique = f"{name} ({number})" if name in counts else name
            counts[unique] = {split: found[number, split] for split in SPLITS}
            self.totals["classes"] += 1
            self._grade(checks.named("class-few", "classes"), column, name, own, "")
            if own:
                detail = f"{own} samples, the largest class has {largest}"
                limit = checks.named("imbalance", "classes")
                self._grade(limit, column, name, largest / own, detail)

    def _grade(
        self, check: Check, column: LabelColumn, name: str, value: float, detail: str
    ) -> None:
        self._values.setdefault(check.name, []).append(float(value))
        if level := check.level(value):
            key, limit = f"{column.name} {name}", check.threshold(level)
            self.findings.append(
                Finding(
                    check.name, level, SPLITS[0], DATASET, key, value, limit, check.unit, detail
                )
            )

    def differ(self, one: Place, other: Place) -> str:
        """Return how the classes of two samples differ, "" where they do not."""
        places = (self._classes.get(str(place), []) for place in (one, other))
        return ", ".join(
            f"{column.name} is {column.names[mine]} here and {column.names[theirs]} there"
            for column, mine, theirs in zip(self._columns, *places, strict=False)
            if isinstance(mine, int) and isinstance(theirs, int) and mine != theirs
        )

    def measured(self, name: str) -> list[float]:
        """Return the values of a check of classes."""
        return self._values.get(name, [])

    def print_tables(self) -> None:
        """Print the samples of each class, of many classes the extremes."""
        for column, classes in self.counts.items():
            rows = list(classes.items())
            if len(rows) > SHOWN:
                rows.sort(key=lambda row: -row[1][SPLITS[0]])
                rows[SHOWN // 2 : -SHOWN // 2] = [(f"… {len(rows) - SHOWN} more", {})]
            console.table(
                (f"labels {column}: {len(classes)} classes", *SPLITS),
                [(name, *(str(counts.get(part, "")) for part in SPLITS)) for name, counts in rows],
            )
