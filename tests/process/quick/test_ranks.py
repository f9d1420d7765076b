"""Several real processes: who they are, what they agree on, and that rank 0 may take its time."""

import textwrap

import pytest
from processes import line, run


def together(tmp_path, body, processes=2, code=0, **env):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, time\nimport numpy as np, torch\nfrom distgan.config.sections import"
        " Machine\nfrom distgan.distributed.ranks import Ranks, exit_process\nfrom"
        " distgan.core.errors import DataError, LaunchError\n" + textwrap.dedent(body)
    )
    return run(line("torchrun", processes, program), cwd=tmp_path, code=code, **env)


def test_sums_means_flags_and_gathers(tmp_path):
    output = together(
        tmp_path,
        """
        r = Ranks(Machine(device="cpu", timeout_s=60))
        assert r.world_size == 3 and r.all_reduce_sum(torch.tensor(2.0)).item() == 6
        assert r.all_reduce_mean(torch.tensor([float(r.rank)])).item() == 1
        assert r.any(r.rank == 2, False) == (True, False)
        mine = np.arange(r.rank, 7, 3) if r.rank else np.arange(0, 7, 3)
        rows = r.gather(mine, torch.tensor(mine)[:, None] * 10.0, 7)
        assert (rows[:, 0].tolist() == [0, 10, 20, 30, 40, 50, 60]) if r.is_main else not len(rows)
        numbers = np.arange(2) if r.is_main else np.zeros(0, int)
        empty = r.gather(numbers, torch.ones(2, 4) if r.is_main else torch.zeros(0), 2)
        r.require_same("the weather", "fine")
        try:
            r.require_same("the rank", str(r.rank))
        except LaunchError as error:
            print(f"told: {error}")
        r.close()
        exit_process(0)
    """,
        processes=3,
    )
    assert output.count("told: the rank differs among ranks: rank 0: 0, rank 1: 1, rank 2: 2") == 3


@pytest.mark.gate
def test_rank_0_may_take_longer_than_the_time_out(tmp_path):
    """A collective time-out of 3 s, 10 s of work on rank 0 alone, and training collectives after
    it.
    """
    output = together(
        tmp_path,
        """
        r = Ranks(Machine(device="cpu", timeout_s=3))
        print(f"got {r.on_rank_zero(lambda: (time.sleep(10), 42)[1])}")
        print(f"sum {r.all_reduce_sum(torch.ones(1)).item()}")
        r.close()
        exit_process(0)
    """,
    )
    assert output.count("got 42") == 2
    assert output.count("sum 2.0") == 2


def test_what_rank_0_raises_all_raise(tmp_path):
    output = together(
        tmp_path,
        """
        r = Ranks(Machine(device="cpu", timeout_s=60))
        def work():
            raise DataError("shard 7 is damaged")
        try:
            r.on_rank_zero(work)
        except DataError as error:
            print(f"told: {error}")
        r.close()
        exit_process(0)
    """,
    )
    assert output.count("told: shard 7 is damaged") == 2


def test_a_launchers_count_that_accelerate_does_not_see_is_refused(tmp_path):
    """Two processes, each of which Accelerate believes to be alone, as under torchrun without
    cpu=True on a machine without a GPU.
    """
    output = together(
        tmp_path,
        """
        import accelerate
        from distgan.distributed import process_group
        class Alone(accelerate.Accelerator):
            num_processes, process_index = 1, 0
        process_group.Accelerator = Alone
        try:
            Ranks(Machine(device="cpu", timeout_s=60))
        except LaunchError as error:
            print(f"told: {error}")
        torch.distributed.barrier()  # else one could leave while the other still joins
        exit_process(0)
    """,
    )
    assert (
        output.count("told: the launcher started 2 processes (WORLD_SIZE=2), but this process sees")
        == 2
    )
