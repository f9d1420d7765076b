"""What jobs of the cluster's tests train with instead of distgan/train.py: `slurm_programs.py KIND
RECIPE key=value … machine.folder=RUN`.

`dry` trains nothing: it notes that it was started, waits for `seconds` and is done. The others are
the real trainer, disturbed.
"""

import json
import os
import sys
import time
from pathlib import Path


def dry(words: list[str]) -> None:
    values = dict(word.split("=", 1) for word in words[1:])
    folder = Path(json.loads(values["machine.folder"]))
    (folder / "attempts").mkdir(parents=True, exist_ok=True)
    with open(folder / "starts.txt", "a") as file:
        file.write(f"{os.environ['DISTGAN_ATTEMPT']} {time.time()}\n")
    time.sleep(float(os.environ.get("DRY_SECONDS", "1")))
    (folder / "DONE").write_text(json.dumps({"step": 10**9, "epoch": 1, "early": None}))


def slow(words: list[str]) -> None:
    """A quarter of a second for each step."""
    from distgan.training import loop

    usual = loop.require_due
    loop.require_due = lambda *given: (time.sleep(0.25), usual(*given))
    _train(words)


def ill(words: list[str]) -> None:
    """By seed: 1 raises in step 3, 2 wants more memory than there is, 3 has numbers that are not
    finite.
    """
    import resource

    import torch

    from distgan.data import transforms
    from distgan.training import loop

    seed = next(int(word[5:]) for word in words if word.startswith("seed="))
    usual, unit = loop.require_due, transforms.to_unit

    def step(batches, layout, rank, now):
        if seed == 1 and now.step == 3:
            raise ZeroDivisionError("a fault of the recipe")
        if seed == 2 and now.step == 3:
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
            torch.zeros(1 << 33)
        return usual(batches, layout, rank, now)

    loop.require_due = step
    if seed == 3:
        transforms.to_unit = lambda images, *dtype: unit(images, *dtype).mul_(float("nan"))
    _train(words)


def _train(words: list[str]) -> None:
    from distgan import train
    from distgan.cli import guarded
    from distgan.distributed.environment import redirect_log
    from distgan.distributed.ranks import exit_process

    redirect_log()
    exit_process(guarded(train.main, words))


if __name__ == "__main__":
    {"dry": dry, "slow": slow, "ill": ill}[sys.argv[1]](sys.argv[2:])
