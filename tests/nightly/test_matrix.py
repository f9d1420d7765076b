"""The same training on every engine: losses of 20 steps and final weights of G, D and G's average
against one process at the full global batch.

`DISTGAN_WRITE_DOCS=1 python -m pytest tests/nightly/test_matrix.py` writes what
it measures into docs/engines.md.
"""

import os

import compare
import pytest
from compare import NIGHTLY, PLAIN, REFERENCE, ROUNDING, SYSTEMS, TOLERANCE, ZERO

DAILY = [(system, way) for system in SYSTEMS for way in (*PLAIN, *ZERO)]
SLOW = [(system, way) for system in SYSTEMS for way in NIGHTLY]
EXACT = [(system, way) for system in SYSTEMS for way in (*PLAIN, *NIGHTLY) if way.zero is None]


def named(cells):
    return {"argvalues": cells, "ids": [f"{system.name}-{way.name}" for system, way in cells]}


@pytest.fixture(scope="module")
def references(sets, tmp_path_factory):
    """A function: the run folder of one process that takes the whole global batch, trained when
    first asked for.
    """
    found = {}

    def reference(system, precision):
        if (system.name, precision) not in found:
            folder = tmp_path_factory.mktemp("reference") / "run"
            found[system.name, precision] = REFERENCE.train(
                system, sets(system.data), folder, f"precision={precision}"
            )
        return found[system.name, precision]

    return reference


@pytest.fixture(scope="module")
def measured():
    """Cells by precision; written into the docs at the end where that was asked for."""
    cells = {"float32": {}, "float64": {}}
    yield cells
    if os.environ.get("DISTGAN_WRITE_DOCS"):
        for precision, rows in cells.items():
            if rows:
                compare.write(precision, rows)


def differences(system, way, precision, references, measured, sets, where):
    reference = references(system, precision)
    found = way.train(system, sets(system.data), where / "run", f"precision={precision}")
    losses, weights = (
        compare.losses_apart(reference, found),
        compare.weights_apart(reference, found, system.networks),
    )
    print(
        f"{precision}, {system.name}, {way.name}: losses {losses:.1e}, "
        + ", ".join(f"{name} {value:.1e}" for name, value in weights.items())
    )
    measured[precision][way.name, system.name] = f"{losses:.1e} · {max(weights.values()):.1e}"
    return max(losses, *weights.values())


@pytest.mark.parametrize(("system", "way"), **named(DAILY))
def test_float32(system, way, references, measured, sets, tmp_path):
    assert differences(system, way, "float32", references, measured, sets, tmp_path) < TOLERANCE


@pytest.mark.parametrize(("system", "way"), **named(SLOW))
def test_float32_nightly(system, way, references, measured, sets, tmp_path):
    assert differences(system, way, "float32", references, measured, sets, tmp_path) < TOLERANCE


@pytest.mark.parametrize(("system", "way"), **named(EXACT))
def test_float64_differs_by_rounding_only(system, way, references, measured, sets, tmp_path):
    """tests/process/quick/test_equality.py holds the same for sagan in every default run."""
    assert differences(system, way, "float64", references, measured, sets, tmp_path) < ROUNDING


@pytest.mark.skipif(
    "DISTGAN_WRITE_DOCS" in os.environ, reason="the table is written when all tests are over"
)
@pytest.mark.parametrize(
    ("precision", "cells", "limit"),
    [("float32", DAILY + SLOW, TOLERANCE), ("float64", EXACT, ROUNDING)],
)
def test_the_table_in_the_docs_has_every_cell(precision, cells, limit):
    table = compare.parse(compare.DOCS.read_text(), precision)
    assert table.keys() == {(way.name, system.name) for system, way in cells}
    assert all(max(compare.figure(cell)) < limit for cell in table.values())
