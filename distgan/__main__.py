"""`python -m distgan VERB …`, and so any verb under a launcher.

Torchrun --nproc-per-node 2 -m distgan evaluate RUN, accelerate launch -m distgan …
"""

from distgan.cli import main

if __name__ == "__main__":
    main()
