"""What a process refuses before it joins others."""

import pytest

from distgan.config.sections import Machine
from distgan.core.errors import LaunchError, RunError
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


@pytest.mark.parametrize(
    ("ranks", "error", "told"),
    [
        (2, RuntimeError("Connection closed by peer [127.0.0.1]"), True),
        (1, RuntimeError("Connection closed by peer [127.0.0.1]"), False),
        (2, RunError("a checkpoint was closed by peer review"), False),
        (2, RuntimeError("shapes do not fit"), False),
    ],
)
def test_a_peer_is_called_lost_only_where_there_are_peers_and_the_backend_says_so(
    ranks, error, told, monkeypatch
):
    here = Ranks(Machine(device="cpu"))
    monkeypatch.setattr(here, "world_size", ranks)
    with pytest.raises(LaunchError if told else type(error)) as raised:
        with here.translating_peer_loss("runs/a"):
            raise error
    assert raised.value is error or "another process of this run has gone" in str(raised.value)
