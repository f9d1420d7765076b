"""Find a source by its name; the results of its check."""

import importlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from distgan.core import console
from distgan.core.errors import ConfigError, did_you_mean


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
        near = did_you_mean(name, source_names())
        names = f"no source {name!r}{near}; there are: {', '.join(source_names())}"
        if os.path.isdir(name):
            line = console.command("shard", "images", f"data/{Path(name).name}", "--from", name)
            names += f". Of a folder of images: {line}"
        raise ConfigError(names)
    return importlib.import_module(f"{__package__}.{name}")
