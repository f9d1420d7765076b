"""Recognise causes of a run's end in its logs and in Slurm's states."""

import re
from dataclasses import dataclass, field

LINES = 6  # of evidence


@dataclass(frozen=True)
class Cause:
    """A cause: its name in a word or two, its meaning, the next command, lines of evidence, and the
    node that they name.
    """

    name: str
    meaning: str
    then: str
    evidence: tuple[str, ...] = field(default=())
    node: str = ""


# What a log says -> (cause, meaning, what to do). The first that fits is it: the more telling stand
# above.
SIGNS: tuple[tuple[str, str, str, str], ...] = (
    (
        r"CUDA out of memory|torch\.OutOfMemoryError|OutOfMemoryError",
        "out of GPU memory",
        "the per-rank batch does not fit",
        (
            "machine.accumulation=2 halves what a step needs and changes no result; `distgan train"
            " … --find-batch` finds the largest"
        ),
    ),
    (
        (
            r"out of memory|MemoryError|can't allocate memory|Cannot allocate"
            r" memory|DefaultCPUAllocator|oom[-_ ]kill|Exceeded job memory limit|exceeded memory"
            r" limit|std::bad_alloc"
        ),
        "out of memory",
        "the node's memory, or the job's share of it, is used up",
        (
            "more memory (distgan retry TARGET --set mem_gb=…), or machine.accumulation=2,"
            " machine.workers=1, a smaller machine.resident_mb"
        ),
    ),
    (
        r"bad numbers: |not finite|is NaN",
        "bad numbers",
        "losses or gradients were repeatedly not finite",
        "look at attempts/…/bad in the run folder and `distgan report RUN`; lower rates (g_lr,"
        " d_lr), or clipping",
    ),
    (
        (
            r"No space left on device|cannot write .*: (No space|Disk quota|File too large)|Disk"
            r" quota exceeded"
        ),
        "disk full",
        "a file of the run could not be written",
        "make room, then: distgan retry TARGET",
    ),
    (
        r"ModuleNotFoundError|ImportError|No module named",
        "import error",
        "the job's Python lacks a module, or the code that was submitted is not whole",
        (
            "install it in that environment, or load it in the profile's setup; then: distgan retry"
            " TARGET"
        ),
    ),
    (
        r"holds other values than rank 0",
        "ranks drifted apart",
        (
            "two ranks hold other weights: a machine that computes wrongly, or two versions of the"
            " program"
        ),
        (
            "leave that node out (distgan retry TARGET --set exclude=NODE), or distgan doctor"
            " --processes 2"
        ),
    ),
    (
        (
            r"(?i:(NCCL|gloo).{0,200}(timed? ?out|timeout))|Watchdog caught collective|another"
            r" process of this run has gone, or does not answer|Connection closed by peer"
        ),
        "lost another process",
        "a process waited for another that had gone or hung",
        (
            "the other ranks' logs say why: distgan logs TARGET --rank 1; it goes on from the last"
            " checkpoint: distgan retry TARGET"
        ),
    ),
    (
        r"EADDRINUSE|Address already in use",
        "port in use",
        "another program has taken the port",
        "distgan retry TARGET",
    ),
    (
        r"Timeout \(\d+:\d\d:\d\d\)!",
        "hung",
        "no progress for machine.stall_s seconds; stacks-rank*.txt say where each process stood",
        "distgan retry TARGET, which goes on from the last checkpoint",
    ),
    (
        r"no progress: ",
        "no progress",
        "several jobs in a row ended before a checkpoint was written",
        "machine.checkpoint_every smaller, or more time: distgan retry TARGET --set time=24h",
    ),
    (
        r"^error: ",
        "refused",
        "the run was refused",
        "fix it, then: distgan retry TARGET, or submit a run with other settings",
    ),
    (
        r"Traceback \(most recent call last\)|^\w*(Error|Exception)\b",
        "an exception",
        "the program raised an error",
        "distgan logs TARGET shows all of it",
    ),
)


SLURM = {
    "NODE_FAIL": Cause(
        "node failure",
        "the node stopped answering",
        "it goes on by itself where Slurm queues it again, else: distgan retry TARGET",
    ),
    "OUT_OF_MEMORY": Cause(
        "out of memory",
        "Slurm ended the job since it used more memory than requested",
        "distgan retry TARGET --set mem_gb=…",
    ),
    "TIMEOUT": Cause(
        "time limit",
        "the job's time ended before it had saved and requeued itself",
        "distgan retry TARGET --set time=…, or a larger signal_lead_s",
    ),
    "CANCELLED": Cause("cancelled", "it was cancelled", "distgan retry TARGET"),
    "BOOT_FAIL": Cause("node failure", "the node did not start", "distgan retry TARGET"),
    "DEADLINE": Cause(
        "deadline", "its deadline passed before it could end", "distgan retry TARGET --set time=…"
    ),
}


def match(text: str, first: str = "") -> Cause | None:
    """Return the cause that a log shows, with the lines around it; None if it shows none.

    Searches `first` (the recorded cause), then lines of errors, then all lines.
    """
    errors = "\n".join(
        line
        for line in text.splitlines()
        if re.match(r"\s*(\[rank\d+\]:\s*)?(error: |[\w.]*(Error|Exception)\b.*:)", line)
    )
    own_errors = [line for line in errors.splitlines() if not re.search(_ECHO, line)]
    for where in (first, "\n".join(own_errors), *([] if own_errors else [errors])):
        cause = _match(where, text, first)
        if cause and cause.name not in ("refused", "an exception"):
            return cause
    return _match("\n".join(own_errors), text, first) or _match(text, text, first)


# Of a process that lost another: what that one says counts for more. And what torch's launcher and
# submitit say of any failure.
_ECHO = (
    r"another process of this run has gone|Connection closed by"
    r" peer|ChildFailedError|CalledProcessError|RendezvousConnectionError|FailedJobError|srun:"
    r" error"
)


def _match(where: str, text: str, first: str) -> Cause | None:
    for pattern, name, meaning, then in SIGNS:
        if re.search(pattern, where, re.MULTILINE):
            hits = [line.strip() for line in text.splitlines() if re.search(pattern, line)]
            first_line = [line.strip() for line in first.splitlines()[:1] if line.strip()]
            errors = [
                line.strip()
                for line in text.splitlines()
                if re.match(r"\s*(error: |\w*(Error|Exception)\b.*:)", line)
            ]
            matching = [
                line.strip()
                for line in where.splitlines()
                if re.search(pattern, line, re.MULTILINE)
            ]
            lines = list(dict.fromkeys([*first_line, *matching[-2:], *hits[-2:], *errors[-2:]]))[
                :LINES
            ]
            return Cause(name, meaning, then, tuple(lines))
    return None
