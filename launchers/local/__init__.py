"""Train on this machine, without a cluster. Imports `slurm`, `runs` and `distgan.distributed`.

run.py     `distgan run`: several processes by `accelerate launch`
accelerate_launch.py  which ends as its ranks do, without a traceback of its own
debug.py   `distgan debug`: a few steps in one process
doctor.py  `distgan doctor`: what works on this machine
demo.py    `make demo`
"""
