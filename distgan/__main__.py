"""Run a verb as `python -m distgan VERB …`, or under a launcher: `torchrun --nproc-per-node 2 -m
distgan evaluate RUN n=50000`. Torchrun takes words that begin with `--` and a prefix of an option
of its own, such as `--n 50000`: write `n=50000` there.
"""

from distgan.cli import main

if __name__ == "__main__":
    main()
