"""`distgan capacity`: `sagan` at several widths, one table, one plot, one recommendation.

Imports `local`, `runs` and `slurm`.

command.py         the verb; trains the widths one after the other
measurement.py     run folders -> rows, and the capacity document's estimates beside them
recommendation.py  rows -> the recommended width, with reasons
table.py           rows as Markdown and CSV
plot.py            rows as one picture
slurm_array.py     `--submit`: the widths as an array
slurm_finish.py    the program of the job after that array: evaluate, report
"""
