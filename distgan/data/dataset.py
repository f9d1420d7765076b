"""Read a folder of shards: its training split, its validation split and the format of a sample."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from distgan.config.settings import Run
from distgan.core import console, watchdog
from distgan.core.errors import ConfigError, DataError, did_you_mean
from distgan.core.reading import read_json
from distgan.data.labels import Labels
from distgan.data.samples import Images, Numbers, Pairs, Vectors, trainable_sample
from distgan.shards.build.advice import advice
from distgan.shards.codecs.image_files import DECODING
from distgan.shards.format.labels import LabelColumn, labels_of, read_labels
from distgan.shards.format.manifest import fingerprint, set_fingerprint
from distgan.shards.format.reader import ShardSet, open_parts
from distgan.shards.format.sample_spec import UNITS, sample_of


def _why_no_dataset(folder: str, root: Path) -> str:
    """Return the message for a folder without dataset.json, with the remedy."""
    parents = (root.parent, root.resolve().parent)  # they differ for `.`
    whole = next((path for path in parents if (path / "dataset.json").is_file()), None)
    if (root / "manifest.json").is_file() and whole:
        return (
            f"{folder} is one split of a data set; name the folder that holds both:"
            f" {shlex.quote(f'data={whole}')}"
        )
    if (root / "manifest.json").is_file():
        return (
            f"{folder} holds shards with an index, but is no data set: a data set has two tars or"
            " more, some of them for validation"
        )
    return advice(folder)


class Data:
    """A folder made by `distgan shard`, or adopted by `distgan index`."""

    def __init__(self, folder: str, verify: Literal["size", "sha256"] = "size"):
        self.folder = root = Path(folder).expanduser()
        try:
            entry = read_json(root / "dataset.json", links=True)
            self.sample: Images | Pairs | Vectors = trainable_sample(sample_of(entry))
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(_why_no_dataset(folder, root)) from None
        except OSError as error:
            raise DataError(f"cannot read {root / 'dataset.json'}: {error.strerror}") from None
        except ValueError as error:
            raise DataError(
                f"{root / 'dataset.json'} is damaged ({error}); run `distgan shard` again into a"
                " new folder"
            ) from None
        parts = open_parts(root, verify)
        self.train, self.validation = parts["train"], parts["validation"]
        self.options = entry.get("options")  # of the command that made it; not checked
        self.statistics_folder = root / "statistics"  # of its images, for scores
        prints = [self.train.fingerprint, self.validation.fingerprint]
        self.fingerprint = set_fingerprint(entry, prints)
        try:
            self._columns = labels_of(entry, self.train.fields)
        except ValueError as error:
            raise DataError(f"{root / 'dataset.json'} is damaged ({error})") from None
        self._say_decoding(entry)
        # Of networks that are given labels, after `require`: the classes, and each sample's class.
        self.labels: Labels | None = None
        self.classes: dict[str, np.ndarray] = {}
        # Only this notices a shard that is missing from `parts`.
        if (stated := entry.get("fingerprint")) not in (None, self.fingerprint):
            raise DataError(
                f"{root / 'dataset.json'} is damaged, or of other shards: it has fingerprint"
                f" {stated}, they have {self.fingerprint}"
            )

    def _say_decoding(self, entry: dict[str, Any]) -> None:
        """Say so where tars of others are decoded as by an earlier version."""
        if entry.get("source") == "index" and isinstance(self.sample, Images):
            if self.sample.decoding < DECODING and self.sample.reads_files:
                console.say(
                    f"{self.folder} was indexed by an earlier version, and its images are decoded"
                    " as by that one: without their orientation (EXIF) and with the colours below"
                    " transparency. To decode them as `distgan shard images` does:"
                    f" {console.command('index', self.folder)}; that is another data set, with"
                    " another fingerprint, and runs on this one do not go on with it"
                )

    @property
    def kind(self) -> str:
        """The kind of the samples: `image`, `pair`, `image_pair` or `vector`."""
        return self.sample.kind

    @property
    def rate(self) -> int:
        """Samples per second of pairs of signals, in Hz."""
        assert isinstance(self.sample, Pairs)
        return self.sample.rate

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample: (channels, height, width), (2, frames of the shortest clip), (2,
        channels, height, width) or (numbers of a vector,).
        """
        return self.sample.shape

    def decode(
        self,
        split: ShardSet,
        numbers: Numbers,
        crop: int | None = None,
        at: np.ndarray | None = None,
    ) -> torch.Tensor:
        """Return the samples `numbers` of a split: images as uint8 [n, channels, height, width],
        with channels last in memory, pairs of them as [n, 2, channels, height, width], pairs of
        signals as int16 or float32 [n, 2, frames], vectors as float32 [n, size].

        With `crop`, pairs are cut to a window of that many frames, the same in both; `at` [n] in
        [0, 1) places it between the first possible start and the last. DataError names the sample.
        """
        return self.sample.tensor(self.sample.decode(split, numbers, crop, at))

    def resident(self, split: ShardSet, label: str) -> torch.Tensor:
        """Return all samples of a split as `decode` does, in shard order."""
        whole = np.empty(0)
        with console.bar(f"decoding {label}", len(split), UNITS[self.kind]) as bar:
            for i in range(len(split)):
                batch = self.sample.decode(split, [i], None, None)
                if i == 0:
                    whole = np.empty((len(split), *batch.shape[1:]), batch.dtype)
                whole[i] = batch[0]
                bar.advance()
        return self.sample.tensor(whole)

    def chunks(
        self, split: ShardSet, size: int, limit: int | None = None
    ) -> Iterator[torch.Tensor]:
        """Yield the first `limit` samples, or all, whole and in shard order, `size` at a time.

        The last chunk may be smaller. Clips of different lengths come one by one.
        """
        end = len(split) if limit is None else min(limit, len(split))
        size = size if self.sample.even else 1
        for start in range(0, end, size):
            watchdog.beat()
            yield self.decode(split, range(start, min(start + size, end)))

    def require(self, run: Run) -> None:
        """Raise ConfigError unless the run's recipe can train on these samples: they must be of its
        kind, channels and sizes, and have at least `crop` frames each, or one length where `crop`
        is None. Of networks that are given labels, read these; DataError names a damaged one.
        """
        if run.kind != self.kind:
            raise ConfigError(
                f"data: {run.recipe} trains on {UNITS[run.kind]}, this data set holds"
                f" {UNITS[self.kind]}"
            )
        self.sample.require_crop(run.crop)
        if isinstance(self.sample, Images):
            self._require_image(run, self.sample)
        if run.label_column is not None:
            self.read_labels(run.label_column)

    def _require_image(self, run: Run, sample: Images) -> None:
        if sample.channels not in run.channels:
            raise ConfigError(
                f"data: {run.recipe} trains on images of {' or '.join(map(str, run.channels))}"
                f" channels, those of this data set have {sample.channels}"
            )
        if not run.sizes.allows(sample.height, sample.width):
            raise ConfigError(
                f"data: {run.recipe} does not train on images of {sample.width}x{sample.height}"
                f" pixels: {run.sizes.words}; make them again with --size"
            )
        if refusal := run.refusal(sample.shape):
            raise ConfigError(refusal)

    def _column(self, name: str) -> LabelColumn:
        """Return the column of labels of that name, "" for the only one; ConfigError."""
        if not self._columns:
            labelled = "images OUT --from FOLDER --labels folders"
            if self.kind == "vector":
                labelled = "vectors OUT --from FILE.csv --labels COLUMN"
            raise ConfigError(
                f"data: {self.folder} has no labels, and conditional networks are given one for"
                " each sample. Make the shards again with labels, as in `distgan shard"
                f" {labelled}`, or train without labels: with distgan's own recipes,"
                " conditional=false"
            )
        if not name and len(self._columns) == 1:
            return next(iter(self._columns.values()))
        if name not in self._columns:
            what = f"no column {name!r}" if name else "several columns"
            near = did_you_mean(name, list(self._columns)) if name else ""
            raise ConfigError(
                f"label: {what} of labels in {self.folder}{near}; choose one of"
                f" {', '.join(self._columns)}"
            )
        return self._columns[name]

    def read_labels(self, name: str) -> None:
        """Read `labels` and `classes` of the column of that name, "" for the only one; ConfigError,
        and DataError for a damaged label.
        """
        column = self._column(name)
        if self.labels and self.labels.column == column.name:
            return
        self.classes = {
            "train": read_labels(self.train, column),
            "validation": read_labels(self.validation, column),
        }
        counts = np.bincount(self.classes["train"], minlength=len(column.names))
        self.labels = Labels(column.name, tuple(column.names), tuple(counts.tolist()))

    def fingerprint_for(self, run: Run) -> str:
        """Return the fingerprint of what the run trains on: the samples, and with labels the
        classes, which dataset.json lists and no shard does.
        """
        if run.label_column is None:
            return self.fingerprint
        column = self._column(run.label_column)
        entry = [column.name, column.field, column.key, list(column.values)]
        return fingerprint([self.fingerprint, json.dumps(entry)])
