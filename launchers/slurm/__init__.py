"""Slurm: submit jobs, run them, and record why they ended.

The only package that calls Slurm's commands. It knows run folders by their files alone: imports
`distgan.core`, `config`, `runs`, `distributed.launch_line`; no torch, no recipe.

client.py          Slurm's commands and the parsing of their output
limits.py          limits of a cluster and an account; the remedy for a refused job
profiles.py        `Resources`: what a job asks for, from a profile and options
snapshot.py        the copy of the package that a job runs
ledger.py          every submission, on disk before sbatch is called
submission.py      runs -> one call of sbatch, by submitit
job.py             the program inside a job, on each of its nodes
job_records.py     attempts/NNN/job.json
restart_policy.py  why a training ended, and whether its job is queued again: pure functions
doctor.py          `distgan doctor --slurm`
dev_cluster.py     `distgan dev-cluster`
"""
