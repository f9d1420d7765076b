"""Start training: in local processes, as jobs of Slurm, as sweeps of many runs.

A launcher decides where a run's processes run; it changes no number of the run. Imports
`distgan.core`, `config`, `runs`, `distributed`, and `distgan.train` to check settings. Only `demo`
and the capacity study import more. Packages, each of which may import those above it:

slurm      one cluster: its commands, profiles, submission, the program inside a job; no torch
executors  where submitted runs are executed: Slurm or this machine; no torch
runs       runs as the launchers see them: plan, state, selection, cost
local      several processes on this machine
commands   the verbs for submitted runs
capacity   the capacity study of `sagan`
sweeps     many runs from one file
job.py     alias that pickles of jobs queued by version 0.1 name
"""
