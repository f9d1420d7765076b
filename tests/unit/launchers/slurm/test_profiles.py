"""Profiles of jobs and the options that change them."""

import pytest
from sweep_options import options_of

from distgan.core.errors import ConfigError
from distgan.launchers.slurm import profiles


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        *(("90m", 90), ("12h", 720), ("2d", 2880), ("30", 30)),
        *(("1-12:00:00", 2160), ("00:01:30", 2), ("1:30", 2), ("1-12", 2160), ("1-12:30", 2190)),
    ],
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


def test_an_option_of_sbatch_has_one_spelling():
    asked = {"mail-type": "END", "comment": "x", "exclusive": True, "nice": 100, "wckey": False}
    read = profiles.read(None, {"sbatch": asked}).sbatch
    assert read == {"mail_type": "END", "comment": "x", "exclusive": True, "nice": 100} | {
        "wckey": False
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpus-per-task": "2"}, "cpus-per-task: the profile's own key for it is cpus"),
        ({"gpus_per_node": "a100:1"}, "gpus_per_node: the profile's own key for it is gpus"),
        ({"requeue": False}, "requeue: cannot be set: a run goes on by being queued again"),
        ({"clusters": "b"}, "export SLURM_CLUSTERS=NAME"),
        ({"mail-type": "END", "mail_type": "ALL"}, "mail_type: is given twice, as mail-type"),
        ({"p": "long"}, "p: write the long name"),
        ({"gres": "gpu:a100:2"}, "has 2 GPUs a node and gpus is 0"),
    ],
)
def test_what_would_be_ignored_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        profiles.read(None, {"sbatch": options})


def test_gpus_have_a_type():
    typed = profiles.chosen(options_of([], gpus="a100:2"))
    assert (typed.gpus, typed.gpu_type, typed.per_node) == (2, "a100", 2)
    assert "2 a100 GPUs a node" in typed.describe()
    assert profiles.chosen(options_of([], gpus="4")).gpus == 4
    with pytest.raises(ConfigError, match="gpus"):
        profiles.chosen(options_of([], gpus="a100:many"))
    same = profiles.read(None, {"gpus": 3, "sbatch": {"gres": "gpu:a100:2,gpu:l4:1,nvme:1"}})
    assert same.gpus == 3


def test_the_shells_defaults_are_below_the_profile_and_the_options(monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "urgent")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1-12")
    asked = profiles.chosen(options_of([]))
    assert (asked.partition, asked.minutes) == ("urgent", 2160)
    assert "2160 min, partition urgent" in asked.describe()
    assert (
        profiles.chosen(options_of([], partition="main", time="1h"))
        .describe()
        .endswith("1h, partition main")
    )
    assert profiles.chosen(options_of([], profile="dev")).partition == "main"
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # a surrounding job's variables are not its user's
    assert profiles.chosen(options_of([])).partition is None


def test_a_signal_before_the_job_begins_is_refused():
    with pytest.raises(ConfigError, match="(?s)time=2m and signal_lead_s=180.*signal_lead_s=12"):
        profiles.read("gpu", {"time": "2m"})
