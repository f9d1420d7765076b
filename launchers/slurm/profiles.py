"""Read what a job asks Slurm for: options over a profile of the site over defaults.

A profile is slurm/profiles/NAME.yaml, ~/.config/distgan/profiles/NAME.yaml, or one that comes with
the package. Imports no torch.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

import distgan
from distgan.config import loading
from distgan.config.sections import Section
from distgan.core.arguments import Arguments, Option
from distgan.core.errors import ConfigError
from distgan.distributed import launch_line

PLACES = (
    Path("slurm/profiles"),
    Path("~/.config/distgan/profiles").expanduser(),
    Path(distgan.__file__).with_name("slurm") / "profiles",
)
Count = Annotated[int, Field(gt=0, le=100_000)]


class Resources(Section):
    """The resources of one job, which trains one run, or several beside each other."""

    partition: str | None = Field(
        None, description="Slurm's partition; null: the cluster's default"
    )
    account: str | None = Field(None, description="account that is charged")
    qos: str | None = Field(None, description="quality of service")
    constraint: str | None = Field(
        None, description="features that nodes must have, as in a100|h100"
    )
    nodes: Count = Field(1, description="nodes for each run")
    gpus: int = Field(0, ge=0, le=1024, description="GPUs on each node; 0: train on the CPU")
    processes: Count | None = Field(
        None, description="training processes on each node; null: one for each GPU, or one"
    )
    cpus: Count = Field(2, description="processors for each training process")
    mem_gb: float | None = Field(
        None, gt=0, description="memory on each node; null: the partition's default"
    )
    time: str = Field(
        "24h",
        description=(
            "time limit, as in 90m, 12h, 2d or 1-12:00:00; a longer run continues in the next job"
        ),
    )
    signal_lead_s: int = Field(
        90,
        gt=0,
        le=100_000,
        description=("seconds before the time limit at which Slurm signals the job"),
    )
    time_outs: int = Field(50, ge=0, description="restarts after the time limit")
    crashes: int = Field(
        2,
        ge=0,
        description=("restarts after a crash, a kill of unknown cause or a hang"),
    )
    max_parallel: Count | None = Field(
        None,
        description="jobs of a sweep that run at the same time; null: no limit",
    )
    pack: Count = Field(1, description="runs beside each other in one job, for small models")
    nodelist: str | None = Field(None, description="only on these nodes")
    exclude: str | None = Field(None, description="not on these nodes")
    setup: tuple[str, ...] = Field(
        (), description="lines of shell before the job begins, such as module load cuda"
    )
    sbatch: dict[str, bool | str] = Field(
        {}, description="further options of sbatch, as in {mail-type: END, exclusive: true}"
    )
    program: tuple[str, ...] | None = Field(
        None,
        description=(
            "program that trains instead of distgan/train.py, with its arguments, to test a cluster"
        ),
    )

    @field_validator("sbatch")
    @classmethod
    def _ours(cls, value):
        taken = sorted(
            {key.replace("_", "-") for key in value}
            & {
                "job-name",
                "output",
                "error",
                "array",
                "parsable",
                "wait",
                "signal",
                "chdir",
                "dependency",
                "open-mode",
            }
        )
        if taken:
            raise ValueError(
                f"{', '.join(taken)} cannot be set: distgan needs these options itself"
            )
        return value

    @field_validator("*")
    @classmethod
    def _one_line(cls, value, info):
        """Refuse what would begin a line of its own in the job's script; setup is such lines."""
        texts = [*value, *value.values()] if isinstance(value, dict) else value
        for text in texts if isinstance(texts, list | tuple) else [texts]:
            if isinstance(text, str) and not text.isprintable() and info.field_name != "setup":
                raise ValueError(
                    f"found {text[:60]!r}, with a newline or another control character; allowed is"
                    " one line of text"
                )
        return value

    @field_validator("time")
    @classmethod
    def _time(cls, value):
        minutes(value)
        return value

    @property
    def per_node(self) -> int:
        """Number of training processes on each node."""
        return self.processes or max(1, self.gpus)

    @property
    def minutes(self) -> int:
        return minutes(self.time)

    def command(
        self, words: Sequence[str], folder: Path, nodes: launch_line.Nodes | None = None
    ) -> list[str]:
        """Return the command that trains a run in `folder`, on this node or on one of `nodes`."""
        arguments = [*words, f"machine.folder={json.dumps(str(folder))}"]
        program = self.program or (str(launch_line.TRAIN),)
        return launch_line.command(self.per_node, arguments, program, nodes)

    def describe(self) -> str:
        """Return nodes, GPUs, processes, time and partition in one line."""
        processes = self.nodes * self.per_node
        return (
            f"{self.nodes} node{'s' * (self.nodes > 1)},"
            f" {f'{self.gpus} GPUs a node' if self.gpus else 'no GPU'}, {processes}"
            f" process{'es' * (processes > 1)}, {self.time}, partition"
            f" {self.partition or 'of the cluster'}"
            + (f", {self.pack} runs a job" if self.pack > 1 else "")
            + (f", {self.max_parallel} jobs at a time" if self.max_parallel else "")
        )


def minutes(text: str) -> int:
    """Convert `90m`, `12h`, `2d`, `1-12:00:00` or `30` to minutes; else raise ValueError."""
    units = {"m": 1, "h": 60, "d": 1440, "": 1}
    if match := re.fullmatch(r"(\d{1,6})([mhd]?)", text):
        value = int(match[1]) * units[match[2]]
    elif match := re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,3}):(\d\d):(\d\d)", text):
        value = 1440 * int(match[1] or 0) + 60 * int(match[2]) + int(match[3]) + (int(match[4]) > 0)
    else:
        raise ValueError("allowed are 90m, 12h, 2d, 1-12:00:00, or a number of minutes")
    if not 0 < value <= 366 * 1440:
        raise ValueError("allowed are one minute to a year")
    return value


def names() -> list[str]:
    return sorted({path.stem for folder in PLACES for path in folder.glob("*.yaml")})


def read(name: str | None, changes: dict[str, Any]) -> Resources:
    """Read a profile by name or path, with `changes` laid over it; raise ConfigError."""
    tree: dict[str, Any] = {}
    if name:
        paths = [
            path
            for path in (Path(name), *(folder / f"{name}.yaml" for folder in PLACES))
            if path.suffix == ".yaml" and path.is_file()
        ]
        if not paths:
            raise ConfigError(
                f"unknown profile {name!r}; there are {', '.join(names()) or 'none'}. A profile is"
                " a path, or the name of a file in slurm/profiles or ~/.config/distgan/profiles"
            )
        tree = loading.read_yaml(paths[0])
    return loading.validate(
        Resources, tree | changes, what=f"profile {name}" if name else "the job"
    )


GROUP = "the job (each overrides the profile's key of the same name)"


def job_options(many: bool = False) -> tuple[Option, ...]:
    """Return the options of verbs that submit; what is not given stays the profile's."""
    keys = ["partition", "account", "time", "nodes", "gpus", "processes", "cpus", "mem_gb"]
    metavars = {"partition": "NAME", "account": "NAME", "time": "TIME"}
    there = ", ".join(names()) or "none"
    return (
        Option(
            "profile",
            f"a file slurm/profiles/NAME.yaml, or a path; there are {there}",
            "NAME",
            group=GROUP,
        ),
        *(
            Option(
                key.replace("_", "-"),
                Resources.model_fields[key].description or "",
                metavars.get(key, "N"),
                group=GROUP,
            )
            for key in [*keys, *(("max_parallel", "pack") if many else ())]
        ),
        Option(
            "set",
            f"any key of a profile: {', '.join(Resources.model_fields)}",
            "KEY=VALUE",
            repeat=True,
            group=GROUP,
        ),
    )


def chosen(options: Arguments, base: dict[str, Any] | None = None) -> Resources:
    """The resources that a command line asks for.

    `base` is laid over the profile and under the options.
    """
    given = {
        name: getattr(options, name, None)
        for name in Resources.model_fields
        if hasattr(options, name)
    }
    # Not read as YAML: 12:00:00 and 1e5 are no numbers here.
    text = {
        name: value
        for name, value in given.items()
        if value is not None and name in ("partition", "account", "time")
    }
    words = [
        f"{name}={value}" for name, value in given.items() if value is not None and name not in text
    ] + options.set
    base = dict(base or {})
    profile = options.profile or base.pop("profile", None)
    base.pop("profile", None)
    return read(profile, base | text | loading.override({}, words))
