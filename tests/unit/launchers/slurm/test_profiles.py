"""Profiles of jobs and the options that change them."""

import pytest
from sweep_options import options_of

from distgan.core.errors import ConfigError
from distgan.launchers.slurm import profiles


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90m", 90), ("12h", 720), ("2d", 2880), ("30", 30), ("1-12:00:00", 2160), ("00:01:30", 2)],
)
def test_times(text, minutes):
    assert profiles.minutes(text) == minutes


def test_a_time_is_no_number_of_base_sixty(tmp_path):
    assert (
        profiles.chosen(options_of([], time="12:00:00")).minutes == 720
        and profiles.chosen(options_of([], account="1e5")).account == "1e5"
    )
    (tmp_path / "p.yaml").write_text("time: 12:00:00\n")
    assert profiles.read(str(tmp_path / "p.yaml"), {}).minutes == 720


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sbatch", "{array: 0-3}"),
        ("time", "soon"),
        ("time", "0m"),
        ("nodes", "0"),
        ("gpus", "-1"),
        ("mem_gb", "x"),
        ("tiem", "12h"),
    ],
)
def test_a_wrong_job_is_one_message(key, value):
    with pytest.raises(ConfigError, match=f"(?s)the job.*{key}"):
        profiles.chosen(options_of([], set=[f"{key}={value}"]))


def test_a_profile_that_is_not_there():
    with pytest.raises(ConfigError, match="there are dev, gpu"):
        profiles.read("dve", {})
    for name in profiles.names():
        assert profiles.read(name, {}).time
