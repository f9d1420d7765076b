"""One file for each kind of source; the file name is the name on the command line.

A source module offers

    EXAMPLES            list of (what it does, command line) for --help
    RECIPE              the recipe to name as the next command; None while no recipe trains on it
    VALIDATION          optional: the share of the samples for validation, where it is not 0.1
    add_options(parser) its own command line options
    Source(args)        what those options name; ConfigError for options that are wrong

and a `Source`, which is pickled to the writer processes, has

    options: dict       what decides the bytes, in JSON types; a rerun must have the same. Keys are
                        names of options without the dashes
    origin: dict        what is recorded but may change between reruns, such as the folder the files
                        were in
    keys: list[str]     one unique key per possible sample, in any order; those that `make` gives
                        them
    check(workers)      looks at every sample before anything is written, and returns a `Check`: the
                        same on every machine
    sample: dict        what a sample is, complete after `check`, written to dataset.json as it is.
                        One of {"kind": "image", "channels": 1|3, "size": pixels, "field":
                        "png"|"jpg"|"npy"} {"kind": "pair", "rate": Hz, "fields": ["input.wav",
                        "target.wav"], "dtype": "int16"|"float32",
                         "length": shortest, "longest": frames}
    group(i) -> str     samples of one group (one recording, one picture) stay on one side of the
                        train/validation split; call after `check`
    make(i) -> dict     sample i as {"__key__": str, field: bytes, ...}: a pure function, so any
                        number of writers gives the same bytes. All samples have the same fields
    make_batch(numbers: list[int]) -> list[dict]
                        optional, in place of `make`: samples that are cheaper together. Always
                        called with the same stretches, the 16 neighbours of a shard (fewer at its
                        end), whatever the workers, kills and tasks; so what it computes may depend
                        on who is in the batch, but not on the number of threads, which differs
                        between a worker and a lone process
"""

import difflib
import importlib
import pkgutil
from dataclasses import dataclass, field
from types import ModuleType

from distgan.core.errors import ConfigError


@dataclass(frozen=True)
class Finding:
    """One sample that is not as it should be."""

    sample: int  # number in Source.keys
    name: str  # what the user calls it: a file name
    reason: str
    usable: bool  # False: no sample can be made of it


@dataclass
class Check:
    """What a source found in its samples; `notes` are sentences about all of them."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def names() -> list[str]:
    """The sources there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """The source module of that name; ConfigError, with the nearest name, if there is none."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"no source {name!r}; there are: {', '.join(names())}{meant}")
    return importlib.import_module(f"{__name__}.{name}")
