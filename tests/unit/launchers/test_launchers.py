"""What decides about jobs, without a cluster.

Sweeps read, verdicts, states, the ledger, profiles, what Slurm prints.
"""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_options import options_of

from distgan.config import loading
from distgan.core.errors import ConfigError, DistganError, LaunchError, RunError
from distgan.launchers.commands import causes, control
from distgan.launchers.runs.accounting import run_cost
from distgan.launchers.runs.plan import plan_run
from distgan.launchers.runs.selection import select
from distgan.launchers.runs.state import RunFiles, read_run_files, run_state
from distgan.launchers.slurm import client, profiles, snapshot, submission
from distgan.launchers.slurm import job_records as records
from distgan.launchers.slurm import restart_policy as verdicts
from distgan.launchers.slurm.ledger import LastSubmission, Ledger, Submission
from distgan.launchers.slurm.restart_policy import EndOfAttempt, decide
from distgan.launchers.sweeps import definition, members, search


# ---- sweeps
@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["ngf=64,96"], [{"ngf": 64}, {"ngf": 96}]),
        (
            ["ngf=64,96", "seed=range(2)"],
            [
                {"ngf": 64, "seed": 0},
                {"ngf": 64, "seed": 1},
                {"ngf": 96, "seed": 0},
                {"ngf": 96, "seed": 1},
            ],
        ),
        (["seed=range(2, 6, 2)"], [{"seed": 2}, {"seed": 4}]),
        (["evaluate.schedule=[[null,10]]", "batch=32"], [{}]),
        (["loss=hinge,lsgan"], [{"loss": "hinge"}, {"loss": "lsgan"}]),
        (["betas=[0.0,0.9],[0.5,0.999]"], [{"betas": [0.0, 0.9]}, {"betas": [0.5, 0.999]}]),
        (["name='a,b'"], [{}]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_words_make_members(words, values):
    assert definition.read(["sagan", *words]).values == values


def test_a_file_makes_members(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "recipe: sagan\nsettings: {data: d, epochs: 3}\ngrid: {ngf: [4, 8], seed: range(2)}\ncases:"
        " [{g_lr: 1e-4}, {g_lr: 2e-4, d_lr: 1e-3}]\nslurm: {profile: dev}\n"
    )
    asked = definition.read([str(path), "epochs=5", "seed=7"])
    assert (
        len(asked.values) == 4
        and asked.values[-1] == {"g_lr": 2e-4, "d_lr": 1e-3, "ngf": 8}
        and asked.slurm == {"profile": "dev"}
    )
    assert asked.words == ['data="d"', "epochs=3", "epochs=5", "seed=7"]
    path.write_text(
        "recipe: sagan\nrandom: {members: 3, seed: 1, g_lr: 'loguniform(1e-5, 1e-3)', ngf: [4,"
        " 8]}\n"
    )
    first = definition.read([str(path)]).values
    path.write_text(path.read_text().replace("members: 3", "members: 5"))
    assert definition.read([str(path)]).values[:3] == first and all(
        1e-5 <= one["g_lr"] <= 1e-3 and one["ngf"] in (4, 8) for one in first
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipe: sagan\ngird: {a: [1]}\ngrid: {}", "gird: unknown key"),
        ("grid: {ngf: [1, 2]}", "recipe: found null"),
        ("recipe: sagan\ngrid: {ngf: 3}", "ngf: found 3, allowed is a list"),
        ("recipe: sagan\ngrid: {ngf: []}", "ngf: found []"),
        ("recipe: sagan\ngrid: {ngf: [4, 4]}", "ngf: 4 is listed twice"),
        ("recipe: sagan\ngrid: {seed: range(x)}", "range(STOP)"),
        ('recipe: sagan\ngrid: {seed: "range(0, 9, 0)"}', "range(STOP)"),
        ("recipe: sagan\ngrid: {seed: range(999999999)}", "allowed are 100,000"),
        ("recipe: sagan\ngrid: {a: range(1000), b: range(1000)}", "1,000,000 members"),
        ("recipe: sagan\nrandom: {members: 0, g_lr: [1]}", "members=0"),
        ("recipe: sagan\nrandom: {members: 2, g_lr: 'loguniform(0, 1)'}", "LOW above 0"),
        ("recipe: sagan\nrandom: {members: 2, g_lr: 'uniform(2, 1)'}", "uniform(LOW, HIGH)"),
        ("recipe: sagan\ngrid: {g_lr: 'uniform(1, 2)'}", "under `random`"),
        ("recipe: sagan\ngrid: {ngf: [1, 2]}\nchain: ndf", 'chain: found "ndf"'),
        ("recipe: sagan\ncases: 3\n", "cases: found 3"),
        (
            "recipe: sagan\nsearch: {trials: 3, space: {a: [1, 2]}}\ngrid: {b: [1, 2]}",
            "search: cannot be combined",
        ),
        ("recipe: sagan\ngrid: [1, 2]", "grid: found [1, 2], allowed is a mapping"),
    ],
)
def test_a_wrong_file_is_one_message(text, said, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="^(?!Traceback)") as error:
        definition.read([str(path)])
    assert said in str(error.value)


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=20)
        | st.sampled_from(["range(3)", "uniform(1,2)", "sagan", "choice(a,b)"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from([*definition.KEYS, "members", "seed", "ngf", "space", "trials"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_no_sweep_file_gives_a_traceback(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(json.dumps(tree))
    try:
        asked = definition.read([str(path)])
        if asked.chain:
            definition.chains(asked.values, asked.chain)
        if asked.search:
            loading.validate(search.Search, asked.search)
        profiles.chosen(options_of([]), asked.slurm)
    except DistganError:
        pass


def test_chains_follow_the_key():
    values = [
        {"ngf": 96, "seed": 0},
        {"ngf": 64, "seed": 0},
        {"ngf": 64, "seed": 1},
        {"ngf": 96, "seed": 1},
    ]
    assert definition.chains(values, "ngf") == [[1, 0], [2, 3]]


def test_every_member_is_checked_before_anything_is_submitted(particles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        members.plan_sweep(options_of(["sagan", f"data={particles}", "ngf=4,0,oops", "batch=12"]))
    assert (
        "2 of 3 members cannot be trained; nothing was submitted" in str(error.value)
        and "ngf=0" in str(error.value)
        and 'ngf="oops"' in str(error.value)
    )
    with pytest.raises(ConfigError, match="are in the sweep twice"):
        members.plan_sweep(options_of(["sagan", f"data={particles}", "epochs=1,2", "batch=12"]))
    with pytest.raises(DistganError, match="data"):
        members.plan_sweep(options_of(["sagan", "data=nowhere", "seed=1,2"]))
    with pytest.raises(DistganError, match="batch"):  # 3 processes cannot share 16
        members.plan_sweep(
            options_of(["sagan", f"data={particles}", "seed=1,2", "batch=16"], nodes="3")
        )
    assert not (tmp_path / "runs").exists()


def test_a_submitted_run_has_the_folder_of_its_identity(particles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planned = plan_run(["sagan", f"data={particles}", "ngf=4", "batch=12"], profiles.Resources())
    assert planned.folder.parent == tmp_path / "runs/sagan" and planned.folder.name.startswith(
        "batch12,ngf4-"
    )
    with pytest.raises(ConfigError, match=r"machine\.folder"):
        plan_run(["sagan", f"data={particles}", "machine.folder=x"], profiles.Resources())
    planned.folder.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    planned.folder.symlink_to(tmp_path / "elsewhere")
    words = ["sagan", f"data={particles}", "ngf=4", "batch=12"]
    assert plan_run(words, profiles.Resources()).folder == tmp_path / "elsewhere"
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    monkeypatch.setattr(os, "fstat", lambda handle, usual=os.fstat: _of_user(4, usual(handle)))
    with pytest.raises(RunError, match="is a link of user .* to"):
        plan_run(words, profiles.Resources())


def _of_user(uid: int, about: os.stat_result) -> os.stat_result:
    return os.stat_result((*about[:4], uid, *about[5:]))


# ---- verdicts
BUDGET = profiles.Resources(time_outs=2, crashes=1)


@pytest.mark.parametrize(
    ("end", "then", "kind"),
    [
        (EndOfAttempt(True, "done", None, 0, ()), "done", "done"),
        (EndOfAttempt(True, "done", None, 1, ("SIGTERM",)), "done", "done"),
        (EndOfAttempt(False, "stopped", "the file STOP", 75, ()), "stopped", "stop"),
        (EndOfAttempt(False, "stopped", "the end of the job's time", 75, ()), "requeue", "time"),
        (EndOfAttempt(False, "stopped", "signal SIGUSR2", 1, ("SIGUSR2",)), "requeue", "time"),
        (EndOfAttempt(False, "running", None, -9, ("SIGUSR2",)), "requeue", "time"),
        (EndOfAttempt(False, "stopped", "signal SIGTERM", 75, ("SIGTERM",)), "leave", "preempted"),
        (EndOfAttempt(False, "running", None, -9, ("SIGTERM",)), "leave", "preempted"),
        (EndOfAttempt(False, "failed", "ZeroDivisionError: x", 1, ()), "fail", "error"),
        (EndOfAttempt(False, None, None, 2, (), "error: batch: found 7\n"), "fail", "error"),
        (
            EndOfAttempt(False, None, None, 2, (), "error: another process is training in x\n"),
            "requeue",
            "crash",
        ),
        (EndOfAttempt(False, "running", None, -9, ()), "requeue", "crash"),
        (
            EndOfAttempt(False, "running", None, 1, (), "stacks-rank0.txt\nTimeout (0:10:00)!"),
            "requeue",
            "hang",
        ),
        (
            EndOfAttempt(
                False,
                "failed",
                "LaunchError: another process of this run has gone, or does not answer (x)",
                1,
                (),
            ),
            "requeue",
            "crash",
        ),
    ],
)
def test_what_is_done_about_an_end(end, then, kind):
    found = decide(end, [], BUDGET)
    assert (found.action, found.kind) == (then, kind) and found.cause


def test_budgets_are_kept_apart():
    late, crash = (
        EndOfAttempt(False, "stopped", "the end of the job's time", 75, ()),
        EndOfAttempt(False, "running", None, -9, ()),
    )
    many = [{"kind": "preempted"}] * 30
    assert (
        decide(late, [*many, {"kind": "time"}], BUDGET).action
        == decide(crash, [*many, *[{"kind": "time"}] * 2], BUDGET).action
        == "requeue"
    )
    assert (
        decide(late, [{"kind": "time"}] * 2, BUDGET).action
        == decide(crash, [{"kind": "hang"}], BUDGET).action
        == "fail"
    )
    assert "no progress" in verdicts.no_progress_reason([{"kind": "preempted", "step": 5}] * 3, 5)
    assert (
        verdicts.no_progress_reason(
            [{"kind": "preempted", "step": 4}, *[{"kind": "time", "step": 5}] * 2], 5
        )
        is None
    )
    assert verdicts.no_progress_reason([{"kind": "time", "step": 5}] * 2, 5) is None


# ---- states
def row(state_, key="7_1", reason="None"):
    return client.QueueEntry(key, state_, reason, "distgan-x", "n1", "1:00", "N/A")


SENT = LastSubmission(Submission("x", "distgan-x", 0.0, [["a"], ["b"]], job="7", array=True), 1)
FRESH = {"state": "running", "heartbeat": "2999-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("found", "place", "queued", "name"),
    [
        (RunFiles(), None, None, "new"),
        (RunFiles(done=True), SENT, row("RUNNING"), "done"),
        (RunFiles(), SENT, row("PENDING", reason="Resources"), "queued"),
        (RunFiles(job={"job": "7_1", "kind": "preempted"}), SENT, row("PENDING"), "requeued"),
        (RunFiles(refused="why"), SENT, row("PENDING"), "queued"),
        (RunFiles(), SENT, row("PENDING", reason="DependencyNeverSatisfied"), "failed"),
        (RunFiles(), SENT, row("A_STATE_OF_A_NEWER_SLURM"), "queued"),
        (RunFiles(shorter=True, status={"state": "done"}), SENT, row("COMPLETED"), "new"),
        (
            RunFiles(status={"state": "failed"}),
            LastSubmission(Submission("x", "distgan-x", 0.0, [["a"]]), 0),
            None,
            "uncertain",
        ),
        (RunFiles(refused="why"), SENT, None, "failed"),
        (RunFiles(), SENT, row("RUNNING"), "running"),
        (RunFiles(status=FRESH), SENT, row("COMPLETING"), "stopping"),
        (RunFiles(), SENT, row("CANCELLED"), "cancelled"),
        (RunFiles(), LastSubmission(SENT.submission, 1, cancelled=True), None, "cancelled"),
        (RunFiles(), SENT, row("NODE_FAIL"), "failed"),
        (RunFiles(status={"state": "stopped"}), SENT, row("COMPLETED"), "stopped"),
        (RunFiles(status={"state": "failed", "cause": "x"}), SENT, row("FAILED"), "failed"),
        (RunFiles(), SENT, None, "lost"),
        (RunFiles(status=FRESH), None, None, "running"),
        (
            RunFiles(status={"state": "running", "heartbeat": "2020-01-01T00:00:00+00:00"}),
            SENT,
            None,
            "lost",
        ),
        (
            RunFiles(),
            LastSubmission(Submission("x", "distgan-x", 0.0, [["a"]]), 0),
            None,
            "uncertain",
        ),
    ],
)
def test_states(found, place, queued, name):
    assert run_state(found, place, queued).name == name


def test_what_a_person_has_stopped_is_only_offered():
    assert not run_state(
        RunFiles(status={"state": "stopped", "cause": "the file STOP"}), SENT, None
    ).missing
    assert not run_state(
        RunFiles(status={"state": "stopped", "cause": "signal SIGTERM"}), SENT, None
    ).missing
    assert run_state(
        RunFiles(status={"state": "stopped", "cause": "the end of the job's time"}), SENT, None
    ).missing


def test_a_longer_run_is_not_done(tmp_path):
    (tmp_path / "DONE").write_text('{"step": 5, "epoch": 1.0, "early": false}')
    assert (
        read_run_files(tmp_path).done
        and read_run_files(tmp_path, 5).done
        and read_run_files(tmp_path, 6).shorter
        and not read_run_files(tmp_path, 6).done
    )
    (tmp_path / "DONE").write_text('{"step": 5, "epoch": 1.0, "early": true}')
    assert read_run_files(tmp_path, 6).done


def test_damaged_records_are_passed_over(tmp_path):
    (tmp_path / "attempts/000").mkdir(parents=True)
    (tmp_path / "attempts/000/job.json").write_bytes(b"\xff{")
    (tmp_path / "status.json").write_text("[1]")
    faults = read_run_files(tmp_path).faults
    assert [fault.partition(" is damaged: ")[0] for fault in faults] == [
        "attempts/000/job.json",
        "status.json",
    ]
    assert read_run_files(tmp_path) == RunFiles(attempts=1, faults=faults)
    assert records.records(tmp_path) == []


# ---- the ledger
def test_the_ledger_knows_what_was_submitted(tmp_path):
    ledger = Ledger(tmp_path)
    one = ledger.begin([["a"], ["b", "c"]], sweep="s")
    a, b, c = map(os.path.realpath, "abc")  # the same folder by another name is the same run
    assert ledger.last_submissions()[b].key is None
    ledger.submitted(one, "12", True)
    assert [ledger.last_submissions()[run].key for run in (a, b, c)] == [
        "12_0",
        "12_1",
        "12_1",
    ] and ledger.last_submissions()[a].submission.details == {"sweep": "s", "user": client.user()}
    with open(ledger.path, "a") as file:
        file.write('{"torn')
    two = ledger.begin([["a"]])
    ledger.submitted(two, "13", False)
    assert ledger.last_submissions()[a].key == "13" and ledger.last_submissions()[b].key == "12_1"
    ledger.append({"state": "cancelled", "id": two.id, "runs": [a]})
    assert ledger.last_submissions()[a].cancelled and not ledger.last_submissions()[b].cancelled


def test_an_interrupted_submission_is_found_or_forgotten(tmp_path):
    ledger = Ledger(tmp_path)
    one, two = ledger.begin([["a"], ["b"]]), ledger.begin([["c"]])
    assert [open_.id for open_ in ledger.resolve_pending({})] == [one.id, two.id]
    assert [
        open_.id
        for open_ in ledger.resolve_pending(
            {"9_1": client.QueueEntry("9_1", "PENDING", "", one.name, "", "", "")}
        )
    ] == [two.id]
    assert ledger.last_submissions()[os.path.realpath("b")].key == "9_1"
    old = ledger.path.read_text().replace(f'"time": {two.time:.3f}'[:18], '"time": 1000000')
    ledger.path.write_text(old)
    assert [open_.id for open_ in ledger.resolve_pending({})] == [
        two.id
    ]  # somebody may be submitting it at this moment
    assert ledger.resolve_pending({}, exclusive=True) == [] and "c" not in ledger.last_submissions()
    ledger.submitted(two, "11", False)  # it was, and only slow
    assert ledger.last_submissions()[os.path.realpath("c")].key == "11"


def test_a_submission_of_which_one_run_was_tried_is_over(tmp_path):
    """And no other: records of another submission, and folders without records, say nothing."""
    ledger = Ledger(tmp_path)
    runs = [tmp_path / name for name in "abc"]
    one, two = ledger.begin([[str(runs[0])], [str(runs[1])]]), ledger.begin([[str(runs[2])]])
    for run, name in ((runs[1], one.id), (runs[2], "another")):
        (run / "attempts/000").mkdir(parents=True)
        (run / "attempts/000/job.json").write_text(
            json.dumps({"submission": name, "job": "1", "started": 1})
        )
    assert [open_.id for open_ in ledger.resolve_pending({})] == [one.id, two.id]
    assert [open_.id for open_ in ledger.resolve_pending({}, exclusive=True)] == [two.id]
    assert [each.void for each in ledger.read()[0]] == [True, False]


def test_what_slurm_has_cancelled_is_remembered(tmp_path):
    ledger = Ledger(tmp_path)
    one = ledger.begin([["a"], ["b"]])
    ledger.submitted(one, "12", True)
    ledger.resolve_pending({"12_1": row("CANCELLED", "12_1")})
    ledger.resolve_pending({"12_1": row("CANCELLED", "12_1")})
    assert ledger.path.read_text().count('"cancelled"') == 1
    places = ledger.last_submissions()
    assert (
        not places[os.path.realpath("a")].cancelled
        and run_state(RunFiles(), places[os.path.realpath("b")], None).name == "cancelled"
    )


def test_jobs_of_another_user_are_not_submitted_again():
    theirs = LastSubmission(
        Submission("x", "distgan-x", 0.0, [["a"]], {"user": "somebody-else"}, job="7"), 0
    )
    found = run_state(RunFiles(), theirs, None)
    assert found.name == "uncertain" and not found.missing and "somebody-else" in found.why


def test_what_another_user_has_submitted_can_be_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm: nothing to end
    ledger, run = Ledger(tmp_path), tmp_path / "e" / "a"
    (run / "attempts").mkdir(parents=True)
    ledger.submitted(ledger.begin([[str(run)]], user="ada"), "7", False)
    assert [one.state.name for one in select(tmp_path, ["a"])] == ["uncertain"]
    control.cancel(["a", "--runs", str(tmp_path)])
    assert [one.state.name for one in select(tmp_path, ["a"])] == ["cancelled"]


def test_two_do_not_submit_at_once(tmp_path):
    with Ledger(tmp_path).locked():
        with pytest.raises(LaunchError, match="another distgan is submitting"):
            with Ledger(tmp_path).locked():
                pass


# ---- profiles, jobs
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


def test_what_sbatch_is_told(tmp_path):
    resources = profiles.Resources(
        gpus=4,
        nodes=2,
        cpus=8,
        mem_gb=64,
        max_parallel=3,
        partition="p",
        sbatch={"exclusive": True},
    )
    found = submission.parameters(tmp_path, "n", 7, resources)
    assert (
        found["gpus_per_node"] == 4
        and found["nodes"] == 2
        and found["ntasks_per_node"] == 1
        and found["cpus_per_task"] == 32
        and found["array_parallelism"] == 3
    )
    assert (
        "--kill-on-bad-exit=1" in found["srun_args"]
        and "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}_submitted.pkl" in found["setup"][-1]
    )
    assert found["additional_parameters"] == {"requeue": True, "exclusive": True}
    odd = submission.parameters(Path("/a folder/$(touch x)"), "n", 1, resources)["setup"][-1]
    assert "'/a folder/$(touch x)'/" in odd  # quoted: nothing of a path is run


def test_nothing_of_a_surrounding_job_is_inherited():
    assert client.clean_environment(
        {"SBATCH_ACCOUNT": "mine", "GROUP_HOME": "g", "SLURM_JWT": "t", "GROUP_RANK": "0"}
    ) == {"SBATCH_ACCOUNT": "mine", "GROUP_HOME": "g", "SLURM_JWT": "t"}
    before = {
        "SLURM_CONF": "c",
        "SLURM_JOB_ID": "1",
        "SBATCH_PARTITION": "x",
        "RANK": "0",
        "MASTER_ADDR": "a",
        "PATH": "p",
        "LOCAL_RANK": "0",
        "PMIX_RANK": "1",
        "HOME": "h",
    }
    assert client.clean_environment(before) == {"SLURM_CONF": "c", "PATH": "p", "HOME": "h"}


def test_the_code_of_a_job_is_a_copy(tmp_path):
    first, again = snapshot.take(tmp_path / "_code"), snapshot.take(tmp_path / "_code")
    assert (
        first == again
        and (first / "distgan/train.py").exists()
        and (first / "distgan/launchers/slurm/job.py").exists()
        and not (first / "tests").exists()
    )
    assert len(json.loads((first / "git.json").read_text())["commit"]) == 40 and not list(
        (tmp_path / "_code").glob(".tmp*")
    )
    (tmp_path / "run").mkdir()
    (tmp_path / f"run/.code.{os.getpid()}").symlink_to("left by a killed process of this number")
    snapshot.link(tmp_path / "run", first)
    assert (tmp_path / "run/code/distgan").is_dir() and not os.readlink(
        tmp_path / "run/code"
    ).startswith("/")


# ---- what Slurm prints
def test_times_and_moments_of_slurm():
    assert (
        client.parse_duration("1-02:03:04") == 93784
        and client.parse_duration("30:00") == 1800
        and client.parse_duration("UNLIMITED") is None
    )
    assert (
        client.parse_time("Unknown") is None
        and abs(client.parse_time(time.strftime("%Y-%m-%dT%H:%M:%S")) - time.time()) < 2
    )


def test_commands_that_fail_say_slurms_words(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SQUEUE_PARTITION", "urgent")  # which would hide jobs
    with pytest.raises(LaunchError, match="distgan dev-cluster up"):
        client.queue()
    (tmp_path / "squeue").write_text(
        '#!/bin/sh\necho "12_3|RUNNING|None|x|n1|1:00|$SQUEUE_PARTITION|me"\n'
    )
    (tmp_path / "squeue").chmod(0o755)
    assert client.queue()["12_3"].start == "" and client.queue()["12_3"].active
    (tmp_path / "squeue").write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact' >&2\nexit 1\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setattr(client, "_AGAIN_S", (0.0, 0.0))
    with pytest.raises(LaunchError, match="Unable to contact"):
        client.queue()


def test_a_question_is_asked_again_where_slurm_is_busy(tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text(
        f"#!/bin/sh\nif [ -e {tmp_path}/asked ]; then echo '7|PENDING|None|x||1:00||me'\nelse : >"
        f" {tmp_path}/asked\necho 'slurm_load_jobs error: Socket timed out on send/recv operation'"
        " >&2; exit 1; fi\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    (tmp_path / "scancel").write_text(
        f"#!/bin/sh\necho x >> {tmp_path}/cancels; echo 'Socket timed out on send/recv operation'"
        " >&2; exit 1\n"
    )
    (tmp_path / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(client, "_AGAIN_S", (0.0, 0.0))
    assert client.queue()["7"].state == "PENDING"
    with pytest.raises(LaunchError, match="Socket timed out"):
        client.cancel(["7"])
    assert (tmp_path / "cancels").read_text() == "x\n"  # what changes something is not repeated


def test_jobs_of_others_who_submitted_here_are_asked_for(tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/words\necho'
        " '9_0|RUNNING|None|distgan-x|n1|1:00||ada'\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    run, ledger = tmp_path / "p" / "r", Ledger(tmp_path)
    ledger.submitted(ledger.begin([[str(run)]], user="ada"), "9", True)
    interrupted = ledger.begin(
        [[str(tmp_path / "p" / "s")]], user="ada, --all"
    )  # no name of a user: taken for one's own
    rows, places = ledger.query()
    assert (
        f"--users={','.join(sorted(['ada', client.user()]))} " in (tmp_path / "words").read_text()
    )
    assert (
        run_state(RunFiles(), places[str(run)], rows["9_0"]).name == "running"
        and interrupted.user == client.user()
    )


def test_slurm_without_a_cluster_is_told_and_asked_only_where_something_was_submitted(
    tmp_path, monkeypatch
):
    (tmp_path / "squeue").write_text(
        "#!/bin/sh\necho 'squeue: fatal: Could not establish a configuration source' >&2\nexit 1\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "e" / "a" / "attempts").mkdir(parents=True)
    assert [one.state.name for one in select(tmp_path, ["a"])] == ["new"]
    Ledger(tmp_path).begin([["b"]])
    with pytest.raises(LaunchError, match="set SLURM_CONF"):
        select(tmp_path, ["a"])


# ---- what is told
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RuntimeError: CUDA out of memory. Tried", "out of GPU memory"),
        ("DefaultCPUAllocator: can't allocate memory", "out of memory"),
        ("slurmstepd: error: Detected 1 oom-kill event", "out of memory"),
        ("error: bad numbers: 6 of", "bad numbers"),
        ("OSError: [Errno 28] No space left on device", "disk full"),
        ("ModuleNotFoundError: No module named 'x'", "import error"),
        ("[gloo] Timed out waiting 1800ms", "lost another process"),
        ("EADDRINUSE", "port in use"),
        ("Timeout (0:10:00)!", "hung"),
        ("error: batch: found 7", "refused"),
        ("Traceback (most recent call last):\nZeroDivisionError: x", "an exception"),
    ],
)
def test_signs(text, name):
    found = causes.match(text)
    assert found.name == name and found.evidence


def test_the_one_that_failed_first_is_the_cause():
    text = (
        "rank0.log\nZeroDivisionError: x\nrank1.log\nRuntimeError: [pair.cc] Connection closed by"
        " peer\nChildFailedError: y"
    )
    assert causes.match(text).name == "an exception" and "ZeroDivisionError" in " ".join(
        causes.match(text).evidence
    )
    assert (
        causes.match(
            "UserWarning: No module named 'triton'\nRuntimeError: CUDA error: an illegal access"
        ).name
        == "an exception"
    )
    assert (
        causes.match("RuntimeError: [pair.cc] Connection closed by peer\nChildFailedError: y").name
        == "lost another process"
    )


def test_an_account_adds_up(tmp_path):
    for number, turn in enumerate(
        [
            {
                "kind": "preempted",
                "started": 101.0,
                "slurm_start": 100.0,
                "ended": 160.0,
                "queued": 90.0,
                "trained_s": 50.0,
                "kept_s": 30.0,
            },
            {
                "kind": "done",
                "started": 201.0,
                "slurm_start": 200.0,
                "ended": 230.0,
                "queued": 160.0,
                "trained_s": 20.0,
                "kept_s": 20.0,
            },
        ]
    ):
        folder = tmp_path / f"attempts/{number:03d}"
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(
            json.dumps({"job": "5_1", "cpus": 2, "gpus": 0, "step": 0, **turn})
        )
    found = run_cost(tmp_path, None)
    assert found.elapsed == 90 and found.turns == 2 and found.queued == 50 and found.units == 2
    assert found.seconds == {"useful": 50, "lost": 20, "failed": 0, "overhead": 20}
    told = {
        "5_1": [
            client.JobSpan(
                "5_1",
                "PREEMPTED",
                61,
                0,
                1,
                2,
                "0:0",
                time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(100)),
            ),
            client.JobSpan(
                "5_1",
                "COMPLETED",
                31,
                0,
                1,
                2,
                "0:0",
                time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(200)),
            ),
        ]
    }
    assert (
        run_cost(tmp_path, told).elapsed == 92
        and sum(run_cost(tmp_path, told).seconds.values()) == 92
    )


def test_looking_at_runs_and_their_jobs_needs_no_torch():
    """`distgan status` answers at once on a login node, and a job's own process stays small."""
    import subprocess
    import sys

    names = [
        "job",
        "slurm.submission",
        "slurm.doctor",
        "commands.status",
        "commands.why",
        "commands.logs",
        "commands.cost",
        "commands.control",
        "commands.show",
        "commands.gc",
        "commands.submit",
        "sweeps.command",
        "sweeps.comparison",
    ]
    lines = [f"import distgan.launchers.{name}" for name in names]
    lines += ["import sys", "assert not {'torch', 'accelerate', 'submitit'} & set(sys.modules)"]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "nowhere"], "has no run folder, run, sweep or job"),
        (["why", "nowhere"], "no run folder"),
        (["logs", "nowhere"], "no run folder"),
        (["cancel", "nowhere"], "no run folder"),
        (["cancel", "4217"], "this job is not the last submission of any run"),
        (["retry", "nowhere"], "no run folder"),
        (["show", "nowhere", "--cmd"], "no run folder"),
        (["sweep", "nowhere.yaml"], "cannot read"),
        (["sweep", "sagan", "data=nowhere", "seed=1,2"], "data"),
        (["sweep", "nowhere", "--report"], "is named nowhere; there is none"),
        (["submit", "sagan", "data=nowhere"], "data"),
        (["submit", "sagna", "data=x"], "did you mean sagan"),
    ],
)
def test_wrong_words_are_one_message_and_nothing_is_written(
    words, said, tmp_path, monkeypatch, capsys
):
    from distgan import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    module, _, function = cli.VERBS[words[0]][0].partition(":")
    assert (
        cli.guarded(getattr(__import__(module, fromlist=["main"]), function or "main"), words[1:])
        == 2
    )
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and "Traceback" not in error
    assert not list(tmp_path.iterdir())
