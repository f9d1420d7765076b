"""The scores inside the page of a run.

Beside each what real images score against real ones at equal sizes, and what it was made with.
Imports no torch.
"""

from typing import Any

from distgan.report.markup import e, number, table
from distgan.runs.history import History

SHOWN = 12
NUMBER = ' class="n"'
_PARTS = ("precision", "recall", "density", "coverage", "sliced_wasserstein", "nearest")


def scoreboard(run: History) -> str:
    """The best and the last evaluation of the training, and those that `distgan evaluate` made
    since.
    """
    scored = [one for one in run.evaluations if one.get("floor")]
    best = (run.best or {}).get("step")
    own = [
        (
            f"step {one.get('step')}, in training" + (", best" if one.get("step") == best else ""),
            one,
        )
        for i, one in enumerate(scored)
        if i == len(scored) - 1 or one.get("step") == best
    ]
    asked = [
        (f"step {one.get('step')}, distgan evaluate", one) for one in run.asked if "score" in one
    ][-SHOWN:]
    rows = "".join(_row(label, one) for label, one in own + asked)
    if not rows:
        return ""
    return (
        "<h2>Scores <small>value ± standard deviation; the floor is what real images score against"
        " other real ones: compare it with the column before, which has as many</small></h2><div"
        ' class="scroll">'
        + table(
            (
                "",
                "#samples",
                "#real",
                "score",
                "#value",
                "#at equal sizes",
                "#floor",
                "#sizes",
                "kernel distance",
                *(f"#{name.replace('_', ' ')}" for name in _PARTS),
            ),
            rows,
        )
        + "</div>"
    )


def _row(label: str, one: dict[str, Any]) -> str:
    floor = one.get("floor") or {}
    real, generated = floor.get("real") or {}, floor.get("generated") or {}
    kernel = next(
        (
            key
            for key in one
            if key.startswith(("kid", "kernel_")) and not key.endswith(("_sd", "_interval"))
        ),
        "",
    )
    cells = [
        label,
        one.get("samples"),
        one.get("reals"),
        one.get("metric"),
        _both(one, "score"),
        number(generated.get("score")),
        number(real.get("score")),
        floor.get("samples"),
        f"{kernel} {_both(one, kernel)}, floor {number(real.get(kernel))}" if kernel else "–",
    ]
    text = "".join(
        f"<td{NUMBER if 0 < i and i not in (3, 8) else ''}>{e(number(cell) if cell is None else cell)}</td>"
        for i, cell in enumerate(cells)
    )
    text += "".join(f'<td class="n">{e(number(one.get(name)))}</td>' for name in _PARTS)
    made = one.get("made_with") or {"extractor": one.get("extractor")}
    known = [
        f"{key.replace('_', ' ')} {value}"
        for key in ("extractor", "weights_sha256", "preprocessing", "path", "seed", "arithmetic")
        if (value := made.get(key)) is not None
    ]
    known += [
        f"{key.replace('_', ' ')} {one[key]}"
        for key in ("against", "noise", "averaged", "checkpoint_digest", "score_sd_by", "time")
        if one.get(key) is not None
    ]
    return (
        f'<tr>{text}</tr><tr><td></td><td colspan="{len(cells) + len(_PARTS) - 1}"'
        f' class="soft">{e("; ".join(known))}</td></tr>'
    )


def _both(one: dict[str, Any], key: str) -> str:
    sd = one.get(f"{key}_sd")
    return number(one.get(key)) + (f" ± {number(sd, 2)}" if sd is not None else "")
