"""`distgan doctor`: what works on this machine, and whether a run's first steps are those of one
process, whatever shares them.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator

import distgan.train as train
from distgan.core import console
from distgan.core.arguments import MANY, Arguments, Command, Option, one_of, switch, whole
from distgan.distributed.environment import CONFIGS
from distgan.launchers.local import run as local

HELP = """Without a recipe: versions, processors, GPUs, and which engines, precisions and options
work here, with the next command if one does not. With a recipe: three steps as the run would take
them (its processes, engine, accumulation, precision, torch.compile, batch normalisation) against
one process that takes the whole batch. Prints every difference; the exit code is 1 if one is larger
than rounding, 2 if the run is refused. Writes nothing."""
EXAMPLES = """examples:
  distgan doctor                                                      this machine
  distgan doctor --processes 2 sagan data=data/particles              two processes of this machine
  distgan doctor --processes 2 --zero 2 sagan data=data/particles batch=32 machine.accumulation=2
  distgan doctor --slurm --profile gpu                                the cluster, for that profile
  torchrun --nproc-per-node 2 -m distgan.train sagan data=data/particles --doctor    any launcher

machine.self_check=true does the same at the start of a run, and trains only if it holds."""
PACKAGES = ("distgan", "torch", "accelerate", "deepspeed", "numpy", "triton", "ninja")
Row = tuple[str, str, str]  # what, "yes" or "no", remark or next command


def _check(options: Arguments) -> Iterator[str]:
    of_a_run = {"processes", "engine", "zero", "show"} & set(options.given)
    if options.zero is not None and options.engine == "ddp":
        yield "--zero: is a stage of DeepSpeed; leave --engine ddp out"
    if options.slurm:
        return
    if of_a_run and not options.words:
        yield (
            f"--{min(of_a_run)}: is for the check of a run; name a recipe: distgan doctor"
            " --processes 2 sagan data=data/particles"
        )
    elif options.processes == 1 and (options.engine == "deepspeed" or options.zero is not None):
        yield "--processes: 1, which has nothing to share by DeepSpeed; use --processes 2"


COMMAND = Command(
    "doctor",
    HELP,
    (
        whole("processes", "processes to start", 1, 4096, default=1),
        one_of("engine", "the same as machine.engine=…", "ddp", "deepspeed"),
        whole(
            "zero",
            "ZeRO stage; the same as machine.engine=deepspeed machine.zero_stage=N",
            0,
            2,
        ),
        switch("show", "print the command instead of running it"),
        switch(
            "slurm",
            "the cluster: limits, time to save, partitions, whether nodes see the folder of runs",
        ),
        Option("profile", "with --slurm: as a job of this profile", "NAME"),
    ),
    (
        "[RECIPE|RUN.yaml key=value …]",
        "what `distgan train` takes; with --slurm the folder of runs",
    ),
    most=MANY,
    settings=lambda words: words and train.plan(words),
    check=_check,
    epilog=EXAMPLES,
)


def main(argv: list[str]) -> int:
    """Return the exit code: 0 where all is well, 1 where steps differ."""
    options = COMMAND.parse(argv)
    if options.slurm:
        from distgan.launchers.slurm import doctor as cluster_doctor

        return cluster_doctor.survey(options.profile, options.words[0] if options.words else "runs")
    if not options.words:
        return survey()
    engine = options.engine or ("deepspeed" if options.zero is not None else None)
    more = [f"machine.engine={engine}"] if engine else []
    more += [] if options.zero is None else [f"machine.zero_stage={options.zero}"]
    return local.replace(options.processes, [*options.words, *more, "--doctor"], options.show)


def survey() -> int:
    """Print what this machine has and what works on it."""
    import torch

    versions = [f"{name} {_version(name) or '–'}" for name in PACKAGES]
    console.say(f"versions    python {platform.python_version()}, {', '.join(versions)}")
    console.say(
        f"processors  {len(os.sched_getaffinity(0))} cores ({platform.machine()}),"
        f" {torch.get_num_threads()} threads a process, OMP_NUM_THREADS"
        f" {os.environ.get('OMP_NUM_THREADS', 'not set')}"
    )
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    for i, gpu in enumerate(gpus):
        console.say(
            f"GPU {i}       {gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, compute capability"
            f" {gpu.major}.{gpu.minor}"
        )
    if not gpus:
        console.say(
            f"GPUs        none that torch {torch.__version__} sees"
            + (
                "; nvidia-smi is here: is torch a CPU build, or the driver too old for it?"
                if shutil.which("nvidia-smi")
                else ""
            )
        )
    console.say(f"configs     {CONFIGS}: for accelerate launch --config_file, and DeepSpeed\n")
    console.table(
        ("", "works", "how, or what to do"),
        works([(gpu.major, gpu.minor) for gpu in gpus]),
        right=False,
    )
    n = len(gpus) or 2
    console.say(f"\nnext: distgan doctor --processes {n} sagan data=data/particles")
    return 0


def works(gpus: list[tuple[int, int]]) -> list[Row]:
    """Return a row for each engine, precision and option, for GPUs of these compute capabilities,
    or for the CPU without GPUs.
    """
    new = bool(gpus) and min(gpus) >= (8, 0)
    where = f"on {len(gpus)} GPU{'s' * (len(gpus) > 1)}" if gpus else "on the CPU"
    slow = "" if gpus else "; slower than float32 on most CPUs: to try things out"
    return [
        ("one process", "yes", f"{where}: distgan train …"),
        (
            "machine.engine=ddp",
            "yes",
            "NCCL, one process per GPU" if gpus else "gloo, any number of processes",
        ),
        _deepspeed(bool(gpus)),
        ("precision=float32, float64", "yes", where),
        (
            "precision=tf32",
            *(
                ("yes", where)
                if new
                else (
                    "no",
                    (
                        "a GPU of compute capability 8.0 or more has it; precision=float32 is the"
                        " same here"
                    ),
                )
            ),
        ),
        (
            "precision=bf16",
            *(
                ("yes", where + slow)
                if new or not gpus
                else ("no", "a GPU of compute capability 8.0 or more has it; precision=fp16")
            ),
        ),
        ("precision=fp16", "yes", where + slow),
        _compile(bool(gpus)),
        (
            "machine.sync_batchnorm",
            *(
                ("yes", where)
                if len(gpus) > 1
                else (
                    "no",
                    "for several GPUs; the usual batch normalisation gives the same numbers",
                )
            ),
        ),
    ]


def _deepspeed(on_gpu: bool) -> Row:
    name = "machine.engine=deepspeed"
    if not importlib.util.find_spec("deepspeed"):
        return name, "no", "pip install 'distgan[deepspeed]'"
    return name, "yes", "ZeRO 0, 1 and 2" + ("" if on_gpu else ", over gloo")


def _compile(on_gpu: bool) -> Row:
    name = "machine.compile"
    if not any(
        shutil.which(compiler) for compiler in (os.environ.get("CXX") or "c++", "g++", "clang++")
    ):
        return (
            name,
            "no",
            "no C++ compiler: apt-get install g++, or a module of the cluster (module load gcc)",
        )
    if on_gpu and not importlib.util.find_spec("triton"):
        return name, "no", "pip install triton"
    return (
        name,
        "yes",
        "default, reduce-overhead (CUDA graphs), max-autotune" if on_gpu else "default",
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
