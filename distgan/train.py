"""Train one run: accelerate launch distgan/train.py RECIPE data=FOLDER [key=value …]

RECIPE: the name of a recipe, a file of your own (my_gan.py), or a run file.

The same program under torchrun, accelerate launch, plain python and as `distgan train`. Running the
same line again continues the run.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
if (
    Path(sys.path[0] or ".").resolve() == HERE
):  # run as a file: Python put distgan/ first, where our files could hide other modules
    sys.path[0] = str(HERE.parent)

from distgan.config import loading  # noqa: E402
from distgan.config.introspection import describe, flatten  # noqa: E402
from distgan.config.settings import Run  # noqa: E402
from distgan.core import console, errors  # noqa: E402
from distgan.core.arguments import (  # noqa: E402
    MANY,
    Arguments,
    Command,
    number,
    switch,
    whole,
)
from distgan.recipes._catalog import (  # noqa: E402
    Module,
    RecipeModule,
    recipe_names,
    resolve_recipe,
)
from distgan.recipes._own_code import blame  # noqa: E402


def plan(words: list[str]) -> tuple[Module, Run, dict[str, Any]]:
    """RECIPE|FILE.py|RUN.yaml key=value … -> (the recipe's module, the settings, those of
    them that the command line gives); ConfigError.
    """
    if not words or "=" in words[0]:
        raise errors.ConfigError(
            f"the first word names a recipe ({', '.join(recipe_names())}, or a file of your own,"
            " as my_gan.py) or a run file; --help shows how"
        )
    module, tree = resolve_recipe(words[0])
    return module, settings(module, tree, words[1:]), loading.override({}, words[1:])


def settings(module: Module, tree: dict[str, Any], words: list[str]) -> Run:
    """Return the settings of a recipe: those of `tree` with key=value applied; ConfigError."""
    try:
        run = loading.validate(module.Settings, tree, words)
        if isinstance(module, RecipeModule):
            _ = run.batches_per_step, run.crop, run.group  # may be code of one's own
    except Exception as error:
        if isinstance(error, errors.DistganError) or not isinstance(module, RecipeModule):
            raise
        place = blame(module.code, error)
        raise errors.ConfigError(f"{place}: {type(error).__name__}: {error}") from error
    return run


def _check(arguments: Arguments) -> Iterator[str]:
    chosen = [name for name in ("dry-run", "doctor", "find-batch") if name in arguments.given]
    if len(chosen) > 1:
        yield f"--{chosen[0]}, --{chosen[1]}: give one of them"
    if arguments.all and not arguments.dry_run:
        yield "--all: only with --dry-run"
    for name in ("processes", "memory"):
        if name in arguments.given and not arguments.find_batch:
            yield (
                f"--{name}: only with --find-batch; `distgan run --processes N …` starts several"
                " processes"
            )


def settings_help(words: list[str]) -> str:
    """Return every setting of the recipe that the first word names, its own before those that every
    run has; "" where there is no such word.
    """
    if not words or "=" in words[0]:
        return ""
    module, tree = resolve_recipe(words[0])
    given = dict(flatten({key: value for key, value in tree.items() if key != "recipe"}))
    own = module.Settings.model_fields.keys() - Run.model_fields.keys() - {"evaluate"}
    lines: dict[bool, list[str]] = {True: [], False: []}
    for key, kind, default, meaning in describe(module.Settings):
        text = f"{kind}: {meaning}" if meaning else kind
        line = f"  {f'{key}={given.get(key, default)}':44} {text}"
        lines[key.partition(".")[0] in own].append(line)
    about = (module.__doc__ or "").strip().splitlines()[:1]
    title = f"Settings of {words[0]}" + "".join(f" ({line})" for line in about)
    return "\n".join([f"{title}\n", *lines[True], "\nSettings of every run\n", *lines[False]])


EXAMPLES = f"""examples:
  accelerate launch --multi_gpu --num_processes 2 -m distgan.train sagan data=data/particles
      also starts 2 CPU processes
  torchrun --nproc-per-node 2 -m distgan.train sagan data=data/particles batch=32
  python -m distgan.train sagan data=data/particles epochs=1 machine.folder=runs/debug
      one process: a debugger works
  distgan train sagan data=data/particles --find-batch --processes 2 --memory 8
      the largest per-rank batch that fits in 8 GB

In a checkout, distgan/train.py in place of -m distgan.train is the same program. The batch is the
global batch: the number of processes does not change the result. The same line again continues the
run. Make data first: distgan shard particles data/particles

Recipes: {", ".join(recipe_names())}; or one of your own: `distgan new my_gan.py` writes a file to
begin with, and `distgan train my_gan.py data=data/particles` trains it (docs/your-own-gan.md).
`distgan train {recipe_names()[0]} --help` lists every setting."""
COMMAND = Command(
    "train",
    "Train one run: a recipe, or a run file, with settings.",
    (
        switch("dry-run", "check everything, build the networks, estimate memory; train nothing"),
        switch("all", "with --dry-run: print every setting, not only those that differ"),
        switch("doctor", "compare the first steps with those of one process; train nothing"),
        switch("find-batch", "find the largest per-rank batch that fits in memory; train nothing"),
        whole("processes", "with --find-batch: of so many processes", 1, 4096, default=1),
        number(
            "memory",
            "with --find-batch: what one process may take (default: what is free)",
            1e-6,
            1e6,
            metavar="GB",
            allowed="a number of GB above 0",
        ),
    ),
    (
        "RECIPE|FILE.py|RUN.yaml [key=value …]",
        f"a recipe ({', '.join(recipe_names())}), one of your own (its file, or pkg.module:Class),"
        " or a run file; and settings",
    ),
    least=1,
    most=MANY,
    settings=plan,
    check=_check,
    epilog=EXAMPLES,
    about=settings_help,
)


def main(argv: list[str]) -> int:
    """Return the exit code: 0 done, 75 saved and stopped on request, 2 refused; of --doctor 1
    where the steps are not those of one process.
    """
    # The deepspeed launcher adds --local_rank; LOCAL_RANK says it, too.
    options = COMMAND.parse([word for word in argv if not word.startswith("--local_rank=")])
    module, run, asked = plan(options.words)

    from distgan.training import attempt, dry_run, find_batch

    if options.find_batch:
        return find_batch.find_batch(run, options.words, options.processes, options.memory)
    if options.doctor:
        return dry_run.doctor(module, run)
    if options.dry_run:
        return dry_run.dry_run(module, run, options.all)
    console.ignore_closed_pipes()
    return attempt.train(module, run, asked).exit_code


class _Callable(ModuleType):
    """This module, which is also the function `distgan.train` of the library."""

    def __call__(self, *given: Any, **settings: Any) -> Any:
        from distgan.library import train

        return train(*given, **settings)


sys.modules[__name__].__class__ = _Callable


def run_as_script() -> None:
    """Train as `distgan/train.py` or `-m distgan.train`, and exit as a rank does."""
    from distgan.distributed.environment import redirect_log

    redirect_log()  # before torch is imported, which may print
    from distgan.cli import guarded

    code = guarded(main, sys.argv[1:])
    if "torch" not in sys.modules:  # refused before anything began
        sys.exit(code)
    from distgan.distributed.ranks import exit_process

    exit_process(code)


if __name__ == "__main__":
    run_as_script()
