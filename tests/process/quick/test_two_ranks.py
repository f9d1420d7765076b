"""Every system is one process' run on two ranks: DDP in one launch, DeepSpeed in another.

Three steps of each, in which every fault known to us shows (docs/engines.md);
tests/nightly/test_matrix.py takes twenty, by command lines.
"""

import json

import pytest
from compare import ROUNDING, TOLERANCE, TRAIN
from processes import ROOT, line, run
from systems import CELLS, DEALT_BY_PLACE, systems_of


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        ("ddp", ROUNDING),
        ("zero2", TOLERANCE),
        pytest.param("zero1", TOLERANCE, marks=pytest.mark.gate),
        pytest.param("zero0", TOLERANCE, marks=pytest.mark.gate),
    ],
)
def test_two_ranks_are_one_process(kind, limit, sets, tmp_path):
    output = run(
        line("torchrun", 2, ROOT / "tests" / "programs" / "systems.py"),
        kind,
        *(str(sets(name)) for name in TRAIN),
        cwd=tmp_path,
    )
    results = json.loads(
        next(text for text in reversed(output.splitlines()) if text.startswith("{"))
    )
    if kind == "ddp":  # a fault, which must show
        verdict, _ = results.pop(DEALT_BY_PLACE)
        assert verdict and "not those of one process" in verdict
    assert results.keys() == {
        f"{system.name}, {words[-1]}" for system in systems_of(kind) for words in CELLS[kind]
    }
    assert not [verdict for verdict, _ in results.values() if verdict]
    assert {name: apart for name, (_, apart) in results.items() if not apart < limit} == {}
