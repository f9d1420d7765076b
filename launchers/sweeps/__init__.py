"""Many runs from one file: grids, cases, random draws, chains, search. Imports `slurm`, `runs`.

command.py     `distgan sweep`
definition.py  a sweep file or `key=a,b` -> the settings of each member: pure functions
members.py     check every member before anything is submitted
reconcile.py   print the plan, submit what is missing, leave the rest alone
search.py      Optuna proposes members
notify.py      a command at the end of a sweep
seeds.py       members that differ in `seed` alone as repetitions
comparison.py  report.html, report.md, report.csv, report.png of a sweep
"""
