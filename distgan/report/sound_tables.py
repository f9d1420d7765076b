"""What `distgan evaluate` measured of held-out clips, inside the page of a run. Imports no torch."""

from typing import Any

from distgan.report.markup import e, number, table
from distgan.runs.history import History


def soundboard(run: History) -> str:
    """The newest such evaluation.

    Means beside those of the input, on the whole and by signal-to-noise ratio.
    """
    found = [
        one
        for one in run.asked
        if one.get("kind") == "sound" and isinstance(one.get("means"), dict)
    ]
    if not found:
        return ""
    newest = max(found, key=lambda one: str(one.get("time")))
    means, conditions, distances = (
        newest.get(key) or {} for key in ("means", "conditions", "distances")
    )
    rows = "".join(
        _row(name, of, means.get(f"input_{name}"), [part.get(name) for part in conditions.values()])
        for name, of in means.items()
        if not name.startswith("input_")
    )
    for name, of in distances.items():
        if not name.startswith("input_"):
            rows += _cells(
                [
                    name,
                    number(of.get("value")),
                    "",
                    number((distances.get(f"input_{name}") or {}).get("value")),
                    f"{of.get('frames')} frames",
                    *[""] * len(conditions),
                ]
            )
    heads = ("", "#mean", "#95 %", "#input", "#clips", *(f"#{name}" for name in conditions))
    return (
        f"<h2>Measures of held-out clips <small>step {e(newest.get('step'))},"
        f" {e(newest.get('samples'))} clips, distgan evaluate; what each is: docs/evaluation.md; "
        "columns on the right: by signal-to-noise ratio</small></h2><div"
        f' class="scroll">{table(heads, rows)}</div>'
    )


def _row(
    name: str, of: dict[str, Any], given: dict[str, Any] | None, parts: list[dict[str, Any] | None]
) -> str:
    low, high = of.get("interval") or (None, None)
    failed = f", {of['failed']} without" if of.get("failed") else ""
    return _cells(
        [
            name,
            number(of.get("mean")),
            f"{number(low)} to {number(high)}" if of.get("interval") else "–",
            number((given or {}).get("mean")),
            f"{of.get('n')}{failed}",
            *(number((part or {}).get("mean")) for part in parts),
        ]
    )


def _cells(cells: list[Any]) -> str:
    return (
        f"<tr><td>{e(cells[0])}</td>"
        + "".join(f'<td class="n">{e(cell)}</td>' for cell in cells[1:])
        + "</tr>"
    )
