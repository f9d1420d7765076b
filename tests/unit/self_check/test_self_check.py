"""The self-check: it holds where only rounding differs, refuses every fault put in, and leaves no
trace in the run that follows.
"""

import json
import math
import re
import shlex
from unittest.mock import patch

import pytest
import torch
from processes import TINY, journal
from self_check_cases import checked

from distgan import cli, train
from distgan.config.sections import Machine
from distgan.core import console
from distgan.core.errors import ConfigError, LaunchError
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks
from distgan.engine import ddp
from distgan.launchers.local import doctor as verb
from distgan.recipes import sagan
from distgan.self_check import comparison as doctor

NONE = doctor.Tolerance(*[(1e-30,) * 3] * 3)  # less than rounding, of which
ROUNDED = ("machine.accumulation=2", "bn_group=6")  # one process has some


# ---- several ranks: one start for all cases of an engine


# ---- one process
@pytest.fixture(scope="module")
def data(particles):
    return Data(str(particles))


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_accumulation_agrees_with_one_step_of_the_whole_batch(precision, data):
    report = checked(Ranks(Machine(device="cpu", accumulation=2), precision), data, bn_group=6)
    assert report.holds and report.worst.apart < {"float64": 1e-11, "float32": 1e-3}[precision]
    assert (
        "3 steps are those of one process" in report.verdict()
        and "1 ranks x 2 micro-batches x 6 per rank" in report.verdict()
    )


def test_accumulation_without_dividing_is_refused(data):
    usual = ddp.Engine.backward

    def backward(self, loss_of, *, last):
        return usual(
            self, lambda: ((found := loss_of())[0] * self._accumulation, found[1]), last=last
        )

    report = checked(
        Ranks(Machine(device="cpu", accumulation=2)),
        data,
        lambda: patch.object(ddp.Engine, "backward", backward),
        bn_group=6,
    )
    assert not report.holds
    with pytest.raises(
        LaunchError,
        match=(
            r"3 steps are not those of one process: .* differs by .*, allowed: .*; \d+ more are"
            r" above"
            r" their tolerance.*"
            r"change.*precision=float64.*machine\.accumulation=1"
        ),
    ):
        report.require()


def test_what_is_not_finite_never_agrees(data):
    with patch.object(
        sagan, "d_adversarial", lambda mode, real, fake, *labels: (real + fake).mean() * math.nan
    ):
        report = checked(Ranks(Machine(device="cpu")), data)
    assert not report.holds and "d/loss" in {row.what for row in report.rows if not row.holds}
    assert any("d/skipped in every step" in row.what for row in report.rows)
    json.dumps(report.summary(), allow_nan=False)


def test_a_loss_near_zero_is_not_measured_by_itself():
    """G's hinge loss passes through 0: rounding beside it is as large as it."""
    losses = {"d/loss": 2.0, "g/loss": 1e-4, "g/grad_norm": 1e-4}
    state = {("G", "weights"): torch.ones(3)}
    one = doctor.Trace([losses], [state, state])
    rounded = doctor.Trace([losses | {"g/loss": 1.1e-4}], [state, state])
    faulty = doctor.Trace([losses | {"g/loss": 3e-3}], [state, state])
    assert all(row.holds for row in doctor.differences(rounded, one, "float32"))
    assert [r.what for r in doctor.differences(faulty, one, "float32") if not r.holds] == ["g/loss"]
    norms = doctor.Trace([losses | {"g/grad_norm": 1.1e-4}], [state, state])
    assert not all(row.holds for row in doctor.differences(norms, one, "float32"))


def test_random_generators_stand_where_they_stood(data):
    before = torch.get_rng_state()
    checked(Ranks(Machine(device="cpu")), data)
    assert torch.equal(before, torch.get_rng_state())


def test_a_batch_that_one_device_cannot_hold(data):
    ranks = Ranks(Machine(device="cpu"))
    usual = doctor._play

    def play(module, run, ranks, *rest):
        if isinstance(ranks, doctor.SingleProcess):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return usual(module, run, ranks, *rest)

    with (
        patch.object(doctor, "_play", play),
        pytest.raises(LaunchError, match="whole batch of 12.*Check with a smaller batch"),
    ):
        checked(ranks, data)


# ---- the verb, and the start of a run
def doctor_of(*words: str) -> int:
    return cli.guarded(train.main, ["sagan", *words, *TINY, "--doctor"])


def test_the_exit_code_says_whether_it_holds(particles, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert doctor_of(f"data={particles}") == 0
    out = capsys.readouterr().out
    assert (
        re.search(r"^optimizer of D +\S+ +\S+ +\S+ +3e-02 5e-02 3e-01", out, re.MULTILINE)
        and "3 steps are those of one process" in out
    )
    with patch.dict(doctor.TOLERANCES, float32=NONE):
        assert doctor_of(f"data={particles}", *ROUNDED) == 1
    assert "!" in capsys.readouterr().out
    assert doctor_of(f"data={tmp_path / 'none'}") == 2
    assert doctor_of(f"data={particles}", "bacth=3") == 2
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_check_fails_does_not_start(particles, tmp_path, capsys):
    with patch.dict(doctor.TOLERANCES, float32=NONE):
        code = cli.guarded(
            train.main,
            [
                "sagan",
                f"data={particles}",
                f"machine.folder={tmp_path / 'run'}",
                "machine.self_check=true",
                *TINY,
                *ROUNDED,
            ],
        )
    said = capsys.readouterr()
    assert (
        code == 2
        and said.err.count("error: ") == 1
        and "are not those of one process" in said.err
        and "optimizer of D" in said.out
    )
    events = [
        json.loads(text) for text in (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    ]
    assert [e["event"] for e in events] == ["self_check", "failed"] and not events[0]["holds"]
    assert not (tmp_path / "run" / "journal.jsonl").exists() or not journal(tmp_path / "run")


def test_the_line_that_is_started(capsys):
    assert verb.main(["--processes", "2", "--zero", "1", "--show", "sagan", "data=my data"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[-5:] == [
        "sagan",
        "data=my data",
        "machine.engine=deepspeed",
        "machine.zero_stage=1",
        "--doctor",
    ]
    assert words[words.index("--num_processes") + 1] == "2"
    assert verb.main(["--engine", "ddp", "--show", "sagan"]) == 0
    assert shlex.split(capsys.readouterr().out)[2:] == ["sagan", "machine.engine=ddp", "--doctor"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--processes", "0", "sagan"], "--processes: found '0', allowed: 1 to 4,096"),
        (["--zero", "1", "--engine", "ddp", "sagan"], "--zero: is a stage of DeepSpeed"),
        (["--zero", "3", "sagan"], "--zero: found '3', allowed: 0 to 2"),
        (["--engine", "fsdp", "sagan"], "--engine: found 'fsdp', allowed: ddp, deepspeed"),
        (["--processes", "2"], "name a recipe: distgan doctor --processes 2 sagan"),
    ],
)
def test_wrong_options_say_what_is_allowed(words, said):
    with pytest.raises(ConfigError) as caught:
        verb.main(words)
    assert said in str(caught.value)


# ---- this machine
def test_a_report_of_this_machine(capsys, monkeypatch):
    assert verb.main([]) == 0
    out = capsys.readouterr().out
    assert (
        f"torch {torch.__version__.partition('+')[0]}" in out
        and "cores" in out
        and "next: distgan doctor --processes" in out
    )


def test_what_does_not_work_names_the_next_command(monkeypatch):
    monkeypatch.setattr(verb.shutil, "which", lambda name: None)
    monkeypatch.setattr(verb.importlib.util, "find_spec", lambda name: None)
    rows = {what: (answer, remark) for what, answer, remark in verb.works([])}
    assert rows["machine.engine=deepspeed"] == ("no", "pip install 'distgan[deepspeed]'")
    assert (
        rows["machine.compile"][0] == "no" and "apt-get install g++" in rows["machine.compile"][1]
    )
    assert rows["precision=tf32"][0] == "no" and rows["precision=bf16"][0] == "yes"


def test_what_works_on_gpus():
    old, new = (
        {what: answer for what, answer, _ in verb.works(gpus)}
        for gpus in ([(7, 0)], [(9, 0), (9, 0)])
    )
    assert (old["precision=tf32"], old["precision=bf16"], old["machine.sync_batchnorm"]) == (
        "no",
        "no",
        "no",
    )
    assert (new["precision=tf32"], new["precision=bf16"], new["machine.sync_batchnorm"]) == (
        "yes",
        "yes",
        "yes",
    )


def test_a_table_is_not_cut_off_a_terminal(capsys):
    console.table(("what", "number"), [("x" * 120, "1.0")])
    assert capsys.readouterr().out.splitlines()[1].startswith("x" * 120 + "  ")
