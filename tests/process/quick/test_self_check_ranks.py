"""The self-check on two ranks: it holds, refuses every fault put in, and leaves no trace."""

import json
from pathlib import Path

import pytest
import self_check_cases
import torch
from processes import BIN, TINY, final, journal, line, run
from self_check_cases import FAULTS, ONLY_FLOAT32, ZERO_FAULTS

CASES = Path(self_check_cases.__file__)


def on_two_ranks(folder, particles, *engine: str) -> dict[str, dict[str, tuple[float, str]]]:
    output = run(line("torchrun", 2, CASES), str(particles), *engine, cwd=folder)
    return json.loads(output.split("FOUND ")[1].splitlines()[0])


@pytest.mark.gate
def test_two_ranks_agree_with_one_process_and_every_fault_is_refused(particles, tmp_path):
    found = on_two_ranks(tmp_path, particles, "ddp")
    own = found.pop("own")  # the inspection of recipes of one's own, on rank 0
    assert own.pop("") == [] and len(own) == 4 and all(lines for lines in own.values()), own
    for precision, cases in found.items():
        for name in ("", "again"):
            assert cases[name][0] < 0.7, (precision, cases[name])
        assert {
            name: text for name, (excess, text) in cases.items() if name in FAULTS and excess < 1.2
        } == {}, precision
    assert found["float64"][""][0] < 1e-3 and found["float32"][""][0] < 1e-3
    assert (
        FAULTS.keys() <= found["float32"].keys()
        and FAULTS.keys() - set(ONLY_FLOAT32) <= found["bf16"].keys()
    )
    assert "among ranks" in found["float32"]["an average that does not follow"][1]


@pytest.mark.gate
@pytest.mark.parametrize("stage", [pytest.param("0", marks=pytest.mark.nightly), "2"])
def test_deepspeed_agrees_with_one_process_and_faults_are_refused(stage, particles, tmp_path):
    cases = on_two_ranks(tmp_path, particles, "deepspeed", stage)["float32"]
    assert cases[""][0] < 1e-2 and cases["again"][0] < 1e-2
    assert {name for name, (excess, _) in cases.items() if excess > 1.2} == cases.keys() - {
        "",
        "again",
    }
    assert (
        stage == "0" or ZERO_FAULTS.keys() <= cases.keys()
    )  # at stage 0 the step is ours, and clips


@pytest.mark.gate
def test_a_run_after_the_check_is_bit_for_bit_the_run_without(particles, tmp_path):
    """On two ranks, whose engines are made twice."""
    folders = []
    for asked in ("true", "false"):
        folders.append(tmp_path / asked)
        output = run(
            line("torchrun", 2),
            "sagan",
            f"data={particles}",
            f"machine.folder={folders[-1]}",
            f"machine.self_check={asked}",
            "epochs=1",
            *TINY,
            cwd=tmp_path,
        )
        assert output.count("self-check: batch 12 = 2 ranks") == (asked == "true")
    assert all(
        torch.equal(value, final(folders[1])[name]) for name, value in final(folders[0]).items()
    )
    rows = [
        {
            step: {
                k: v
                for k, v in row.items()
                if "seconds" not in k and "per_second" not in k and not k.startswith("time/")
            }
            for step, row in journal(f).items()
        }
        for f in folders
    ]
    assert rows[0] == rows[1]
    (event,) = (
        e
        for e in map(json.loads, (folders[0] / "events.jsonl").read_text().splitlines())
        if e["event"] == "self_check"
    )
    assert event["holds"] and event["difference"] <= event["allowed"] and "2 ranks" in event["way"]


@pytest.mark.gate
def test_a_launched_check_is_refused_before_anything_starts(particles, tmp_path):
    output = run(
        [str(BIN / "distgan"), "doctor", "--processes", "5"],
        "sagan",
        f"data={particles}",
        *TINY,
        cwd=tmp_path,
        code=2,
    )
    assert output.startswith("error: a global batch of 12 cannot be shared by 5 ranks")
