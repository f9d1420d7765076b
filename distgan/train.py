"""Train one run: accelerate launch distgan/train.py RECIPE|RUN.yaml data=FOLDER [key=value …]

The same program under torchrun, accelerate launch, plain python and as `distgan train`. Running the
same line again continues the run.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
if (
    Path(sys.path[0] or ".").resolve() == HERE
):  # run as a file: Python put distgan/ first, where our files could hide other modules
    sys.path[0] = str(HERE.parent)

from distgan.config import loading  # noqa: E402
from distgan.config.settings import Run  # noqa: E402
from distgan.core import errors  # noqa: E402
from distgan.recipes._catalog import recipe_names, resolve_recipe  # noqa: E402


def plan(words: list[str]) -> tuple[ModuleType, Run, dict[str, Any]]:
    """RECIPE|RUN.yaml key=value … -> (the recipe's module, the settings, what of them the command
    line asked for); ConfigError.
    """
    if not words or "=" in words[0]:
        raise errors.ConfigError(
            f"the first word names a recipe ({', '.join(recipe_names())}) or a run file; --help"
            " shows how"
        )
    module, tree = resolve_recipe(words[0])
    run = loading.validate(module.Settings, tree, words[1:])
    return module, run, loading.override({}, words[1:])


def main(argv: list[str]) -> int:
    """Returns the exit code: 0 done, 75 saved and stopped on request, 2 refused; of --doctor 1
    where the steps are not those of one process.
    """
    from distgan.training import attempt, dry_run, find_batch

    argv = [
        a for a in argv if not a.startswith("--local_rank=")
    ]  # which the deepspeed launcher adds; LOCAL_RANK says it, too
    words, flags = (
        [a for a in argv if not a.startswith("-")],
        {a for a in argv if a.startswith("-")},
    )
    if "-h" in flags or "--help" in flags:
        return dry_run.show_help(words[0] if words else None)
    if unknown := {
        flag
        for flag in flags - {"--dry-run", "--doctor", find_batch.FLAGS[0]}
        if not ("--find-batch" in flags and flag.startswith(find_batch.FLAGS[1:]))
    }:
        several = (
            "; `distgan run --processes N …` starts several processes"
            if any(flag.startswith("--processes") for flag in unknown)
            else ""
        )
        raise errors.ConfigError(
            f"unknown option {', '.join(sorted(unknown))[:60]}; there are --dry-run, --doctor,"
            " --find-batch (with --processes=N, --memory=GB) and --help; settings are given as"
            f" key=value{several}"
        )
    module, run, asked = plan(words)
    if "--find-batch" in flags:
        return find_batch.find_batch(run, words, flags)
    if "--doctor" in flags:
        return dry_run.doctor(module, run)
    return (
        dry_run.dry_run(module, run) if "--dry-run" in flags else attempt.train(module, run, asked)
    )


if __name__ == "__main__":
    from distgan.distributed.environment import redirect_log

    redirect_log()
    from distgan.cli import guarded
    from distgan.distributed.ranks import exit_process

    exit_process(guarded(main, sys.argv[1:]))
