"""Train on this machine, without a cluster. Imports `slurm`, `runs` and `distgan.distributed`.

run.py     `distgan run`: several processes by `accelerate launch`
debug.py   `distgan debug`: a few steps in one process
doctor.py  `distgan doctor`: what works on this machine
demo.py    `make demo`
"""
