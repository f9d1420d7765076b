"""DeepSpeed engines against torch by hand.

Real processes, one start for each ZeRO stage, which runs all cases of
tests/programs/deepspeed_cases.py.
"""

import json
from pathlib import Path

import pytest
from processes import line, run

CASES = Path(__file__).parents[2] / "programs" / "deepspeed_cases.py"
TOLERANCE = 2e-5
# Gradients of half a batch are rounded to 8 bits before they are averaged; the reference rounds
# those of the whole batch.
TOLERANCES = {"bf16": 5e-3, "fp16": 0.0}


@pytest.fixture(scope="module", params=[0, 1, 2], ids="ZeRO {}".format)
def found(request, tmp_path_factory):
    """(stage, what the cases of that stage found).

    Without a compiler in reach: nothing may be built.
    """
    folder = tmp_path_factory.mktemp("zero")
    output = run(
        line("torchrun", 2, CASES),
        str(request.param),
        cwd=folder,
        PATH=str(folder),
        TORCH_EXTENSIONS_DIR=str(folder / "built"),
    )
    assert not (folder / "built").exists()
    lines = [text for text in output.splitlines() if text]
    assert len(lines) == 1, f"DeepSpeed is not quiet:\n{output}"
    return request.param, json.loads(lines[0].removeprefix("FOUND "))


@pytest.mark.gate
def test_players_in_deepspeed_are_those_of_one_process(found):
    stage, numbers = found
    numbers = {name: value for name, value in numbers.items() if name not in ("faults", "refused")}
    assert len(numbers) >= 15
    assert {
        name: value for name, value in numbers.items() if value > TOLERANCES.get(name, TOLERANCE)
    } == {}


@pytest.mark.gate
def test_faults_put_back_are_seen(found):
    stage, numbers = found
    faults = numbers["faults"]
    if stage:
        assert faults["clipping left to DeepSpeed"] > 100 * TOLERANCE
        assert faults["weights clamped alone"] > 100 * TOLERANCE
    if stage == 2:
        assert "already been reduced" in faults["D not frozen"]
    else:  # the gradient that G's update leaves in D is thrown away when D's begins
        assert faults["D not frozen"] < TOLERANCE
    assert faults["D not frozen, gradients kept"] > 100 * TOLERANCE if stage < 2 else True


@pytest.mark.gate
def test_what_would_train_something_else_is_refused(found):
    stage, numbers = found
    assert all("float64" in text for text in numbers["refused"][:1])
    if stage:
        assert f"precision=fp16 is not supported under ZeRO {stage}" in numbers["refused"][1]
        assert f"ZeRO {stage} cannot share LBFGS" in numbers["refused"][2]
