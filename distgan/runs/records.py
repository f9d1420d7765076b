"""Read the small files of runs, sweeps and submissions, each checked against its declared fields.

They lie in folders that others may write. What they do not declare is passed through unchecked.
"""

from pathlib import Path
from typing import Annotated, Any, Required

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from distgan.core.errors import RunError
from distgan.core.reading import parse_json, read_bytes, read_json, read_lines

Count = Annotated[int, Field(ge=-(2**53), le=2**53)]
Time = Annotated[float, Field(ge=-1e15, le=1e15)]  # seconds; not infinite, not NaN
_OPEN = ConfigDict(extra="allow", strict=True)


class Best(TypedDict, total=False):
    """The best evaluation of a run."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    step: Count
    epoch: Time | None
    score: float | None
    metric: str


class Status(TypedDict, total=False):
    """status.json, and of DONE and attempt.json what they share with it."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    state: str
    cause: str | None
    step: Count | None
    samples: Count | None
    epoch: Time | None
    best: Best | None
    verdict: str | None
    heartbeat: str | None
    started: str | None
    ended: str | None
    early: bool | None
    peak_memory_mb: Time | None
    data: dict[str, Any] | None


class Skips(TypedDict):
    """The updates of one player, and those skipped lately."""

    updates: Count
    skipped: list[Any]


class Memory(TypedDict, total=False):
    """The state of the monitor between two decisions (monitor/decisions.py)."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    epoch: Required[Time]
    rollbacks: Count
    answered: dict[str, Count]


class Nothing(TypedDict):
    """No memory: the monitor has made no decision yet."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]


class CheckpointRecord(TypedDict, total=False):
    """checkpoint.json."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    step: Required[Count]
    samples: Required[Count]
    digest: Required[str]
    best: Best | None
    best_scheduled: Best | None
    rows_of_step: Count
    rows: list[dict[str, Any]]
    warned: list[str]
    troubled: bool
    healthy: Count | None
    changed: dict[str, Any]
    memory: Memory | Nothing
    ended: str | None
    mishaps: dict[str, Skips]


class JobRecord(TypedDict, total=False):
    """job.json: one stay of a run on nodes."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    job: Required[str]
    submission: str
    host: str
    nodes: str | None
    gpus: Count
    cpus: Count
    shared_by: Count
    restart: Count
    queued: Time | None
    slurm_start: Time | None
    started: Required[Time]
    step: Count
    command: list[str]
    ended: Time
    heard: Time
    then: str
    kind: str
    cause: str | None
    last_step: Count
    trained_s: Time
    kept_s: Time


class Member(TypedDict):
    """A run of a submission."""

    folder: str
    words: list[str]


class Submitted(TypedDict, total=False):
    """submission.json."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    id: Required[str]
    elements: Required[list[list[Member]]]
    resources: Required[dict[str, Any]]
    signals_all: bool


class Members(TypedDict, total=False):
    """members.json of a sweep."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    runs: Required[list[str]]
    values: list[dict[str, Any]]
    numbers: list[Count]  # of the runs, as in SWEEP:NUMBER; without: their places in the list
    dropped: dict[str, Count]  # runs that are no longer members, with their numbers


class LedgerEntry(TypedDict, total=False):
    """A line of the ledger of submissions."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    id: Required[str]
    state: Required[str]
    time: Time
    name: str
    members: list[list[str]]
    job: str
    array: bool
    runs: list[str]


_FIELDS: dict[str, TypeAdapter] = {
    "status.json": TypeAdapter(Status),
    "DONE": TypeAdapter(Status),
    "checkpoint.json": TypeAdapter(CheckpointRecord),
    "attempt.json": TypeAdapter(Status),
    "job.json": TypeAdapter(JobRecord),
    "submission.json": TypeAdapter(Submitted),
    "members.json": TypeAdapter(Members),
    "ledger.jsonl": TypeAdapter(LedgerEntry),
}
_ANY: TypeAdapter = TypeAdapter(dict[str, Any])


def read(path: Path) -> dict[str, Any]:
    """Read a record; OSError, or ValueError if it is not what a file of its name should be."""
    return checked(path.name, read_json(path))


def checked(name: str, value: Any) -> dict[str, Any]:
    """Return `value`, read from a file of this name; ValueError names the field that is wrong."""
    try:
        _FIELDS.get(name, _ANY).validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        message = f"{fault['msg'][:1].lower()}{fault['msg'][1:]}"
        raise ValueError(f"{where}: {message}" if where else message) from None
    return value


def read_if_good(path: Path) -> dict[str, Any]:
    """Read a record; {} if it is missing or damaged."""
    try:
        return read(path)
    except (OSError, ValueError):
        return {}


def refusal(folder: Path) -> str | None:
    """Return why a run is not begun again, from its file NO_RESTART; None without one."""
    try:
        text = read_bytes(folder / "NO_RESTART", 1 << 16).decode(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"NO_RESTART cannot be read: {error.strerror}"
    return text[:2000] or "NO_RESTART"


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events of events.jsonl, [] without one; a damaged line becomes an event
    `unreadable`. RunError if the file cannot be read.
    """
    try:
        lines = read_lines(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    events = []
    for line in filter(bytes.strip, lines):
        try:
            event = parse_json(line)
        except ValueError:
            event = None
        events.append(
            event
            if isinstance(event, dict)
            else {"event": "unreadable", "line": line[:80].decode(errors="replace")}
        )
    return events


def warnings(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events `warning`."""
    return [event for event in events if event.get("event") == "warning"]
