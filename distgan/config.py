"""The settings of a run: a recipe's defaults, a YAML file, `key.path=value`, checked at once. Imports no torch."""

import dataclasses
import difflib
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field

from distgan.errors import ConfigError
from distgan.watch import Watch

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the settings: an unknown key is an error, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)


class Evaluate(Section):
    schedule: tuple[tuple[Positive | None, Positive], ...] = Field(
        ((200, 10), (800, 20), (None, 50)), min_length=1,
        description="[until epoch, every n epochs] pairs; the last 'until' is null. Also evaluated before the first step and after the last")
    samples: int = Field(500, ge=2, description="generated images per evaluation")
    inception: str | None = Field(
        None, description="path of pytorch-fid's Inception weights; without it the score is a seeded stand-in, frechet_standin")

    @pydantic.field_validator("schedule")
    @classmethod
    def _rising(cls, value):
        ends = [until for until, _ in value]
        if ends[-1] is not None or None in ends[:-1] or ends[:-1] != sorted(set(ends[:-1])):
            raise ValueError("the 'until' epochs must rise and only the last is null, as in [[200, 10], [800, 20], [null, 50]]")
        return value


class Machine(Section):
    """What may differ between two machines that train the same run; not part of its identity."""

    runs: str = Field("runs", description="folder in which run folders are made")
    folder: str | None = Field(None, description="the run folder itself, instead of runs/<experiment>/<changes>-<identity>")
    accumulation: int = Field(1, gt=0, description="micro-batches per update; ranks x accumulation x per-rank batch = batch")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    workers: int = Field(2, ge=0, description="decoding processes per rank, for data that does not fit in memory")
    resident_mb: int = Field(1024, ge=0, description="decode the training set once into memory where it is smaller than this")
    verify: Literal["size", "sha256"] = Field("size", description="how shards are checked at start; each sample's crc32 is always checked")
    journal_every: int = Field(1, gt=0, description="write the numbers of every n-th step")
    flush_steps: int = Field(20, gt=0, description="fetch numbers from the device, and write the journal, every n steps")
    checkpoint_every: Positive = Field(10, description="epochs between two checkpoints")
    keep: int = Field(3, gt=0, description="newest checkpoints to keep; the best one is kept as well")
    timeout_s: int = Field(1800, gt=0, description="a collective that takes longer ends the run; rank-0 work is not bound by it")


class Run(Section):
    """What every recipe understands; a recipe's `Settings` adds its own keys and defaults."""

    recipe: str = Field(description="the system to train")
    data: str = Field(description="folder made by `distgan shard`, with train/ and validation/")
    experiment: str = Field("", pattern=r"^([A-Za-z0-9_][A-Za-z0-9._-]*)?$", description="name of the parent folder of the run; the recipe's name if empty")
    seed: int = Field(0, ge=0, description="every random number is drawn from (seed, purpose, index)")
    batch: int = Field(gt=0, description="the global batch: samples per update over all ranks and micro-batches")
    precision: Literal["float32", "float64"] = Field(
        "float32", description="of weights and arithmetic; float64 is for proving that two ways of starting a run are equal")
    epochs: Positive = Field(description="how far to train; a longer run is the same run, continued")
    validate_every: Positive = Field(10, description="epochs between two validations, on rank 0, over the whole validation set")
    sample_every: Positive = Field(10, description="epochs between two sample grids from the same noise")
    max_skips: int = Field(20, gt=0, description="stop after this many updates in a row with a gradient that is not finite")
    evaluate: Evaluate = Evaluate()
    watch: Watch = Watch()
    machine: Machine = Machine()

    @property
    def group(self) -> int:
        """Samples of the global batch that share batch-norm statistics; 1 where a recipe has none."""
        return 1

    @classmethod
    def where(cls) -> set[str]:
        """Keys that say where and how far to run, not what the run is."""
        return {"machine", "experiment", "epochs", "data"}

    def identity(self, fingerprint: str) -> dict[str, Any]:
        """`{"id": 8 hex digits, "settings": ..., "data": fingerprint}`: two runs with equal identities are one run."""
        hashed = {"settings": self.model_dump(mode="json", exclude=self.where()), "data": fingerprint}
        digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()
        return {"id": digest[:8], **hashed}

    def delta(self) -> str:
        """What differs from the recipe's defaults, as a name for people: `ngf32,batch12`; `default` where nothing does."""
        mine = dict(flatten(self.model_dump(mode="json", exclude=self.where() | {"recipe"})))
        usual = dict(flatten(defaults(type(self))))
        changed = [f"{key.rpartition('.')[2]}{value}" for key, value in mine.items() if key not in usual or usual[key] != value]
        return re.sub(r"[^A-Za-z0-9.,_-]+", "_", ",".join(changed))[:60] or "default"


def flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """`{"a": {"b": 1}}` -> `[("a.b", 1)]`."""
    rows: list[tuple[str, Any]] = []
    for name, value in tree.items():
        rows += flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return rows


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Default values as plain data, nested like the settings; required keys are absent."""
    found = {}
    for name, field in model.model_fields.items():
        if not field.is_required():
            value = field.get_default(call_default_factory=True)
            found[name] = value.model_dump(mode="json") if isinstance(value, BaseModel) else json.loads(json.dumps(value))
    return found


def describe(model: type[BaseModel], prefix: str = "") -> list[tuple[str, str, str]]:
    """Rows of (key, default, meaning) for every setting, in the order of definition."""
    rows = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            rows += describe(field.annotation, f"{prefix}{name}.")
        else:
            value = "(required)" if field.is_required() else json.dumps(defaults(model)[name])
            rows.append((prefix + name, value, field.description or ""))
    return rows


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, not the last one's silent victory."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise ConfigError(f"{node.start_mark.name}: key {', '.join(sorted(twice))} stands twice in one mapping")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; a ConfigError names the file and the line."""
    try:
        with open(path, encoding="utf-8") as file:
            tree = yaml.load(file, _Loader) or {}  # _Loader is a SafeLoader
    except OSError as error:
        raise ConfigError(f"cannot read the run file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, found {type(tree).__name__}")
    return tree


def override(tree: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Apply `a.b=value` in order; values are YAML, later ones win. Returns a new tree."""
    tree = json.loads(json.dumps(tree, default=str))
    wrong = []
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
            wrong.append(f"  {text!r} is not of the form key=value, as in batch=32 or evaluate.samples=500")
            continue
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        try:
            node[leaf] = yaml.load(value, _Loader)  # _Loader is a SafeLoader
        except yaml.YAMLError:
            wrong.append(f"  {key}: found {value!r}, which is not valid YAML; quote it")
    if wrong:
        raise ConfigError("\n".join([f"{_count(len(wrong))} on the command line:", *wrong]))
    return tree


def settle(model: type[Run], tree: dict[str, Any]) -> Run:
    """Check `tree` against a recipe's settings; one ConfigError lists every fault."""
    try:
        return model.model_validate(tree)
    except pydantic.ValidationError as error:
        known = [key for key, _, _ in describe(model)]
        lines = [f"  {_fault(fault, known)}" for fault in error.errors()]
        raise ConfigError("\n".join([f"{_count(len(lines))} in the settings of {tree.get('recipe', 'the run')}:", *lines])) from None


def _count(n: int) -> str:
    return "1 error" if n == 1 else f"{n} errors"


def _fault(fault: dict[str, Any], known: list[str]) -> str:
    """One pydantic error -> `key: found X, allowed Y`."""
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, known, 1, 0.6) or [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]]
        return f"{key}: unknown key" + (f"; did you mean {close[0]}?" if close else "; `--help` after the recipe lists every key")
    if fault["type"] == "missing":
        return f"{key}: missing; give it as {key}=…"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{key}: found {fault['input']!r}; {message[:1].lower() + message[1:]}"


@dataclasses.dataclass(frozen=True)
class Breakdown:
    """How a global batch is shared: ranks x accumulation x per_rank = batch, in batch-norm groups of `group` samples."""

    batch: int
    ranks: int
    accumulation: int
    per_rank: int
    group: int

    def __str__(self) -> str:
        return f"batch {self.batch} = {self.ranks} ranks x {self.accumulation} micro-batches x {self.per_rank} per rank, in groups of {self.group}"


def breakdown(batch: int, ranks: int, accumulation: int, group: int = 1) -> Breakdown:
    """Share a global batch, or raise ConfigError with the values that fit.

    `group` is the number of neighbouring samples of the global batch that share batch-norm statistics; a micro-batch must hold whole groups.
    """
    share = ranks * accumulation
    if batch % share:
        fits = [n for n in range(1, batch + 1) if batch % n == 0]
        raise ConfigError(
            f"a global batch of {batch} cannot be shared by {ranks} ranks x {accumulation} micro-batches: {share} does not divide {batch}. "
            f"Fit: batch={batch // share * share or share} or batch={(batch // share + 1) * share}; or ranks x accumulation = "
            f"{', '.join(map(str, fits))}")
    micro = batch // accumulation
    if micro % group:
        fits = [k for k in range(1, batch + 1) if batch % k == 0 and batch // k % group == 0 and batch % (k * ranks) == 0]
        also = f"machine.accumulation={', '.join(map(str, fits))}" if fits else f"another batch than {batch}"
        raise ConfigError(
            f"batch normalisation over groups of {group} samples does not fit micro-batches of {micro} samples ({batch} / "
            f"{accumulation}): the statistics of a group need all its samples in one forward pass. "
            f"Fit: {also}, or a bn_group that divides {micro} (this is another run: its statistics differ)")
    return Breakdown(batch, ranks, accumulation, batch // share, group)


def reference_group(batch: int, reference: int) -> int:
    """The default batch-norm group: the largest divisor of `batch` that is no larger than the recipe's reference batch."""
    return max(n for n in range(1, min(batch, reference) + 1) if batch % n == 0)
