"""Find a source by its name; the results of its check."""

import difflib
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from distgan.core.errors import ConfigError


@dataclass(frozen=True)
class SampleIssue:
    """One sample that is not as it should be."""

    sample: int  # number in Source.keys
    name: str  # what the user calls it: a file name
    reason: str
    usable: bool  # False: no sample can be made of it


@dataclass
class SourceReport:
    """The result of a source's check; `notes` are sentences about all samples."""

    issues: list[SampleIssue] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def source_names() -> list[str]:
    """Return the names of all sources: the files of this folder that do not begin with _."""
    files = Path(__file__).parent.glob("[!_]*.py")
    return sorted(file.stem for file in files)


def load_source(name: str) -> ModuleType:
    """Return the source module of that name; ConfigError with the nearest name if none."""
    if name not in source_names():
        near = difflib.get_close_matches(name, source_names(), 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"no source {name!r}; there are: {', '.join(source_names())}{meant}")
    return importlib.import_module(f"{__package__}.{name}")
