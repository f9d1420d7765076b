"""What a process refuses before it joins others."""

import pytest

from distgan.config.sections import Machine
from distgan.core.errors import LaunchError
from distgan.distributed.ranks import Ranks


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(LaunchError, match="no CUDA device"):
        Ranks(Machine(device="cuda"))


@pytest.mark.parametrize("variable", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_processes_that_would_each_be_rank_0_are_refused(variable, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv(variable, "2")
    with pytest.raises(LaunchError, match=f"{variable}=2.*torchrun or accelerate launch"):
        Ranks(Machine(device="cpu"))
