"""Every system: micro-batches of one process are its whole batch."""

import pytest
from compare import ROUNDING, SYSTEMS
from systems import CELLS, numbers_apart, report


@pytest.mark.parametrize(
    "words",
    [CELLS["alone"][0], pytest.param(CELLS["alone"][1], marks=pytest.mark.gate)],
    ids=lambda words: words[-1],
)
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_accumulation_is_the_whole_batch(system, words, sets):
    checked = report(system, sets(system.data), words)
    assert checked.holds, checked.verdict()
    assert numbers_apart(checked) < ROUNDING
