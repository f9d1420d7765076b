"""Read what a job asks Slurm for: options over a profile of the site over defaults.

A profile is slurm/profiles/NAME.yaml, ~/.config/distgan/profiles/NAME.yaml, or one that comes with
the package. Imports no torch.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

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
# Options of sbatch that have a key of their own in a profile, and those that distgan gives itself.
_KEYS = {
    **{name: name for name in ("partition", "account", "qos", "constraint", "nodes", "time")},
    **{"nodelist": "nodelist", "exclude": "exclude", "mem": "mem_gb", "cpus_per_task": "cpus"},
    **dict.fromkeys(("gpus", "gpus_per_node", "gpus_per_task", "gpus_per_socket"), "gpus"),
    **dict.fromkeys(("ntasks", "ntasks_per_node", "tasks_per_node"), "processes"),
}
_OURS = {
    *("job_name", "output", "error", "input", "array", "parsable", "wait", "wrap", "signal"),
    *("chdir", "dependency", "open_mode", "kill_on_invalid_dep", "test_only"),
}
_REFUSED = {
    **dict.fromkeys(
        ("requeue", "no_requeue"),
        "a run goes on by being queued again; time_outs: 0 and crashes: 0 keep it from that",
    ),
    **dict.fromkeys(("clusters", "cluster"), "choose the cluster by `export SLURM_CLUSTERS=NAME`"),
}
# Variables of a shell that sbatch would rank above the options of a script, and the keys that they
# are the defaults of.
SHELL = {
    "SBATCH_PARTITION": "partition",
    "SBATCH_ACCOUNT": "account",
    "SBATCH_QOS": "qos",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_TIMELIMIT": "time",
}


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
    gpus: int = Field(
        0, ge=0, le=1024, description="GPUs on each node, as in 4 or a100:4; 0: train on the CPU"
    )
    gpu_type: str | None = Field(
        None, pattern=r"^[\w.+-]{1,80}$", description="type of the GPUs; null: any"
    )
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
        (),
        description=(
            "lines of shell before the job begins, such as module load cuda; one that fails ends"
            " the job"
        ),
    )
    sbatch: dict[str, bool | int | str] = Field(
        {}, description="further options of sbatch, as in {mail-type: END, exclusive: true}"
    )
    program: tuple[str, ...] | None = Field(
        None,
        description=(
            "program that trains instead of distgan/train.py, with its arguments, to test a cluster"
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _typed(cls, tree: Any) -> Any:
        """Split `gpus: a100:4` into the number and the type."""
        if isinstance(tree, dict) and isinstance(tree.get("gpus"), str):
            kind, colon, count = tree["gpus"].rpartition(":")
            if colon and kind and count.isdecimal():
                return {**tree, "gpus": int(count), "gpu_type": kind}
        return tree

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

    @field_validator("sbatch")
    @classmethod
    def _checked(cls, value: dict[str, bool | int | str]) -> dict[str, bool | int | str]:
        """Give each option its one spelling; refuse what would be ignored, or said twice."""
        options: dict[str, bool | int | str] = {}
        wrong = []
        for written, setting in value.items():
            key = written.removeprefix("--").replace("-", "_")
            if len(key) < 2 or not re.fullmatch(r"[a-z][a-z0-9_]*", key):
                wrong.append(f"{written}: write the long name of the option, such as mail-type")
            elif key in _KEYS:
                wrong.append(f"{written}: the profile's own key for it is {_KEYS[key]}")
            elif key in _OURS:
                wrong.append(f"{written}: cannot be set, since distgan needs it itself")
            elif key in _REFUSED:
                wrong.append(f"{written}: cannot be set: {_REFUSED[key]}")
            elif key in options:
                wrong.append(f"{written}: is given twice, as {key.replace('_', '-')}")
            options[key] = setting
        if wrong:
            raise ValueError("; ".join(wrong))
        return options

    @model_validator(mode="after")
    def _agreeing(self) -> Self:
        gres = self.sbatch.get("gres")
        gpus = [part.split(":") for part in f"{gres or ''}".split(",") if part.startswith("gpu")]
        counts = [int(part[-1]) if part[-1].isdecimal() else 1 for part in gpus]
        if counts and sum(counts) != self.gpus:
            raise ValueError(
                f"sbatch: gres={gres} has {sum(counts)} GPUs a node and gpus is {self.gpus}; give"
                f" the same number, or only gpus: TYPE:{sum(counts)}"
            )
        if self.mem_gb and (more := {"mem_per_cpu", "mem_per_gpu"} & self.sbatch.keys()):
            raise ValueError(
                f"sbatch: {min(more)} and mem_gb={self.mem_gb:g} exclude each other; write"
                " mem_gb: null"
            )
        return self

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
            f" {self._gpus()}, {processes}"
            f" process{'es' * (processes > 1)}, {self._duration()}, partition"
            f" {self.partition or 'of the cluster'}"
            + (f", {self.pack} runs a job" if self.pack > 1 else "")
            + (f", {self.max_parallel} jobs at a time" if self.max_parallel else "")
        )

    def _gpus(self) -> str:
        if not self.gpus:
            return "no GPU"
        kind = f"{self.gpu_type} " if self.gpu_type else ""
        return f"{self.gpus} {kind}GPU{'s' * (self.gpus > 1)} a node"

    def _duration(self) -> str:
        plain = self.time[-1].isalpha() or self.time.count(":") == 2
        return self.time if plain else f"{self.minutes} min"


def minutes(text: str) -> int:
    """Convert `90m`, `12h`, `2d`, or a time as Slurm writes it, to minutes; else raise ValueError.

    Slurm's: `30` minutes, `1:30` is minutes and seconds, `1:30:00`, `1-12` days and hours,
    `1-12:30`, `1-12:30:00`.
    """
    units = {"m": 1, "h": 60, "d": 1440, "": 1}
    if match := re.fullmatch(r"(\d{1,6})([mhd]?)", text):
        value = int(match[1]) * units[match[2]]
    elif match := re.fullmatch(r"(\d{1,6}):(\d\d)", text):
        value = int(match[1]) + (int(match[2]) > 0)
    elif match := re.fullmatch(r"(\d{1,4})-(\d{1,2})(?::(\d\d))?", text):
        value = 1440 * int(match[1]) + 60 * int(match[2]) + int(match[3] or 0)
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
    resources = loading.validate(
        Resources, from_shell() | tree | changes, what=f"profile {name}" if name else "the job"
    )
    if resources.signal_lead_s >= resources.minutes * 60:
        raise ConfigError(
            f"time={resources.time} and signal_lead_s={resources.signal_lead_s}: the signal to save"
            f" would come before the job begins; give a longer --time, or --set"
            f" signal_lead_s={max(1, resources.minutes * 6)}"
        )
    return resources


def from_shell() -> dict[str, str]:
    """Return the keys that SBATCH_… variables of the shell are the defaults of.

    A surrounding job's variables are not its user's.
    """
    if "SLURM_JOB_ID" in os.environ:
        return {}
    return {key: os.environ[name] for name, key in SHELL.items() if os.environ.get(name)}


_TEXTS = ("partition", "account", "time", "gpus", "nodelist", "exclude")
GROUP = "the job (each overrides the profile's key of the same name)"


def job_options(many: bool = False) -> tuple[Option, ...]:
    """Return the options of verbs that submit; what is not given stays the profile's."""
    keys = ["partition", "account", "time", "nodes", "gpus", "processes", "cpus", "mem_gb"]
    keys += ["nodelist", "exclude"]
    metavars = {"partition": "NAME", "account": "NAME", "time": "TIME", "gpus": "[TYPE:]N"}
    metavars |= {"nodelist": "NODES", "exclude": "NODES"}
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
    text = {name: value for name, value in given.items() if value is not None and name in _TEXTS}
    words = [
        f"{name}={value}" for name, value in given.items() if value is not None and name not in text
    ] + options.set
    base = dict(base or {})
    profile = options.profile or base.pop("profile", None)
    base.pop("profile", None)
    return read(profile, base | text | loading.override({}, words))
