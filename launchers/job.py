"""Alias for jobs that were queued before version 0.2: their pickles name `launchers.job.Job`."""

from distgan.launchers.slurm.job import Job

__all__ = ["Job"]
