"""Train one run in the processes that a launcher has started, and record it in a run folder.

Imports everything below it: self_check, recipes, evaluation, engine, data, distributed, runs,
config, monitor, core. Only distgan.train and distgan.commands import this package.

setup           processes, data, batch layout, networks, evaluator
attempt         train, and record the attempt
dry_run         `--help`, `--dry-run`, `--doctor`
loop            batches, step, journal, checks, checkpoints
saving          checkpoints, the archive, the record of the best; the disk they take
checks          samples, validation, evaluation and the monitor's decision between two steps
nonfinite       updates that are not finite: count, report, respond
journal_writer  numbers from the device to the journal
stop_requests   requests to save or to stop
out_of_memory   what to change if memory does not suffice
find_batch      `--find-batch`: the largest per-rank batch that fits
"""
