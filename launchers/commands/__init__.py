"""The verbs for submitted runs, one file each. Imports `slurm` and `runs`.

submit.py   `distgan submit`
status.py   `distgan status`: one table of all runs
logs.py     `distgan logs`: what a run printed, across attempts
why.py      `distgan why`: cause, evidence, next command
causes.py   the table of causes that `why` recognises
launch_causes.py  those of jobs that ended before their first step, or wait
show.py     `distgan show`: command, settings, job of a run
control.py  `distgan stop`, `save`, `cancel`, `retry`
cost.py     `distgan cost`: GPU-hours
gc.py       `distgan gc`: remove what no run needs
"""
