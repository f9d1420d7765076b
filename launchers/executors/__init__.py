"""Execute submitted runs: one interface, implemented by Slurm and by this machine.

An executor takes runs (`submit`), lists its jobs as lines of a queue (`queue`), and ends them
(`cancel`). All else is common: the ledger with one entry for each submission, submission.json, the
program of a job (`slurm/job.py`) with its attempts, budgets and records, and the states made from
these (`runs/state.py`). So a folder of runs may pass from one executor to the other and back.
Imports `slurm`; no torch.

interface.py   `Executor`, which one a command line asks for, one queue of all executors
cluster.py     the executor Slurm
local.py       the executor of this machine: jobs as processes, read from records and /proc
scheduler.py   the detached process that starts the jobs of one local submission
member.py      the process of one local job
processes.py   a process by number, start time, machine, user and command
"""
