"""Runs as the launchers see them: planned, submitted, running, ended.

Imports `slurm`, `distgan.config`, `runs` and, to check settings, `distgan.train`. No torch at the
top of a file.

plan.py             words of `distgan train` -> a checked run with its folder
state.py            run folder, ledger and squeue -> one state
selection.py        TARGETs of a command line -> runs with their states
accounting.py       seconds on nodes, by what became of them
submit_warnings.py  what the cluster's settings mean for runs before they are submitted
"""
