"""Where a run runs: here, in local processes, on Slurm."""
