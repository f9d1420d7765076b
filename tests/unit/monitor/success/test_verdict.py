"""Verdicts as a practitioner would give them, of stored journals of real runs and of invented ones;
and the same sentence wherever a run is shown.
"""

import json
from pathlib import Path

import pytest
from journals import collapsed, repaired
from run_folders import invent_pair

from distgan.commands import report
from distgan.config.loading import validate
from distgan.launchers.commands import status
from distgan.launchers.runs.selection import SelectedRun
from distgan.launchers.runs.state import RunState, read_run_files
from distgan.launchers.sweeps import comparison
from distgan.monitor.journal import THIN, at_last_check, floor_row, read_journal, thinned
from distgan.monitor.settings import WAVEFORM, Watch
from distgan.monitor.success.verdict import judge
from distgan.recipes._catalog import resolve_recipe
from distgan.report.page import render
from distgan.runs.history import read_history

STORED = Path(__file__).parents[3] / "fixtures" / "journals"
GOOD = {"valid/diversity": 0.8, "valid/nearest": 0.95, "floor/coverage": 0.8, "floor/ratio": 1.3}


def scored(scores, metric="frechet_standin", **changes):
    """Rows of evaluations ten epochs apart, of a run with settings of its own: the numbers of GOOD
    but for the changes; `floor_ratio` is the score over its floor, None to leave both out.
    """
    numbers = GOOD | {name.replace("_", "/", 1): value for name, value in changes.items()}
    floor, rows = numbers.pop("floor/ratio"), []
    known = {key: value for key, value in numbers.items() if value is not None}
    for i, score in enumerate(scores):
        row = {"step": 100 * i, "epoch": 10.0 * i, f"eval/{metric}": score} | known
        if floor is not None:
            row |= {"floor/samples": 150, "floor/real": 1.0, "floor/generated": floor}
        rows.append(row)
    return rows


def beside(rows, **numbers):
    more = {f"valid/{name}": value for name, value in numbers.items()}
    return [row | (more if "valid/l1" in row else {}) for row in rows]


FALLING = (300, 100, 30, 9, 3)
BEATEN = {"beats_trivial": 0.9, "zeros_l1": 1.0, "input_l1": 1.0}
ZEROS = {"l1": 0.4, "beats_trivial": 0.0, "zeros_l1": 0.4, "input_l1": 1.0}
WARNED = [{"rule": "mode_collapse", "level": "warning", "step": 300, "epoch": 30.0}]
WITHOUT = {"valid_diversity": None, "valid_nearest": None}  # of a GAN without `validate`

# Rows, warnings, level, words of the sentence.
TABLE = {
    "healthy": (scored(FALLING), [], "success", ["4 of 4 success criteria met"]),
    "a warning that has passed": (
        scored(FALLING),
        WARNED,
        "reservations",
        ["1 warning raised (mode_collapse), none holds"],
    ),
    "copies of training images": (
        scored(FALLING, floor_coverage=0.97, floor_ratio=0.9, valid_nearest=0.0),
        [],
        "failed",
        ["samples copy training images (nearest 0)", "3 of 4"],
    ),
    "varied samples that miss the score by little, and get no better": (
        scored((9, 5, 5, 5, 5), floor_ratio=2.3),
        [],
        "short",
        ["not good enough: frechet_standin 2.3 times its floor", "3 of 4"],
    ),
    "the same score of samples whose variety nothing measures": (
        scored((9, 5, 5, 5, 5), floor_ratio=2.3, floor_coverage=None, **WITHOUT),
        [],
        "failed",
        ["frechet_standin 2.3 times its floor"],
    ),
    "a GAN of one's own that is validated and not scored, collapsed": (
        [
            {"step": i, "epoch": float(i), "valid/diversity": 0.01, "valid/mine": 1.0}
            for i in range(12)
        ],
        [],
        "failed",
        ["samples are alike (diversity 0.01)"],
    ),
    "scores that are not finite": (
        scored((9, float("nan"), float("nan"), float("nan")), floor_ratio=None),
        [],
        "failed",
        ["numbers are not finite"],
    ),
    "collapsed, of a GAN of one's own": (
        scored((9, 8, 8, 8, 8), floor_coverage=0.01, floor_ratio=8.5, **WITHOUT),
        [],
        "failed",
        ["1% of real samples covered", "8.5 times its floor"],
    ),
    "a GAN of one's own whose samples nothing measures": (
        scored(FALLING, floor_coverage=None, floor_ratio=None, **WITHOUT),
        [],
        "undecided",
        ["not measured: diversity, coverage, frechet_standin", "0 of 4"],
    ),
    "noise": (
        scored((300, 300, 299, 300), floor_coverage=0.0, floor_ratio=99.0, valid_diversity=3.6),
        [],
        "failed",
        ["samples are noise (diversity 3.6)"],
    ),
    "flowers at 174 → 110": (
        scored((174, 150, 130, 110), "fid", floor_ratio=2.75),
        [],
        "improving",
        ["fid 2.75 times its floor, FID 110"],
    ),
    "a journal from before there were floors": (
        scored(FALLING, floor_coverage=None, floor_ratio=None),
        [],
        "undecided",
        ["not measured: frechet_standin", "2 of 4"],
    ),
    "large sets, without the rows that coverage needs": (
        scored(FALLING, floor_coverage=None),
        [],
        "reservations",
        ["coverage not measured"],
    ),
    "no numbers that are known": (
        [{"step": 1, "epoch": 1.0, "valid/mine": 1.0}],
        [],
        "unjudged",
        [],
    ),
    "nothing yet": ([], [], "unjudged", ["no validation yet"]),
}
PAIRS = {
    "repaired": (beside(repaired(12), **BEATEN), "success", ["6 of 6"]),
    "D has won": (beside(collapsed(12), **BEATEN), "failed", ["D loss too low at the end"]),
    "zeros": (beside(repaired(12), **ZEROS), "failed", ["zeros or the input are as good"]),
    "two epochs": (beside(repaired(2), **BEATEN), "early", ["D loss, GAN loss of G"]),
}


@pytest.mark.parametrize("name", TABLE)
def test_samples_from_noise(name):
    rows, warnings, level, words = TABLE[name]
    found = judge(rows, {}, Watch(), warnings)
    assert found.level == level and all(word in found.sentence for word in words), found.sentence


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name):
    rows, level, words = PAIRS[name]
    found = judge(rows, {}, WAVEFORM, [])
    assert found.level == level and all(word in found.sentence for word in words), found.sentence


@pytest.mark.parametrize(
    ("journal", "recipe", "settings", "level", "words"),
    [
        ("sagan-collapsed", "sagan", {"epochs": 24}, "failed", "samples are alike (diversity 0.1"),
        ("sagan-five", "sagan", {"epochs": 5}, "early", "1 evaluation after the start"),
        ("sagan-small", "sagan", {"epochs": 520}, "reservations", "D(G(z)) not met; 6 of 7"),
        ("hinge-blobs", "sagan", {"loss": "hinge"}, "failed", "samples are alike (diversity 0.0"),
        ("wgan_gp", "wgan_flowers", {}, "undecided", "not measured: frechet_standin"),
    ],
)
def test_real_runs(journal, recipe, settings, level, words):
    """Of which every tenth step is kept, so a window of 3 lines is one of 30 steps."""
    module, tree = resolve_recipe(recipe)
    run = validate(module.Settings, {**tree, "data": "x", **settings})
    watch, values = run.watch.model_copy(update={"window": 3}), run.model_dump(mode="json")
    found = judge(read_journal(STORED / f"{journal}.jsonl"), values, watch, [])
    assert found.level == level and words in found.sentence, found.sentence


def test_a_collapse_is_no_failure_before_the_run_ends():
    """A young G draws the mean image, while its score falls."""
    rows = read_journal(STORED / "sagan-collapsed.jsonl")
    watch = Watch(window=3)
    assert judge(rows, {"epochs": 2000}, watch, []).level == "improving"
    assert judge(rows, {"epochs": 24}, watch, []).level == "failed"
    assert judge(rows, {"epochs": 2000}, watch, WARNED).level == "failed"


def test_warnings_that_a_continued_run_raises_again_count_once():
    found = judge(scored(FALLING), {}, Watch(), [*WARNED, *WARNED])
    assert found.raised == ("mode_collapse",)


def test_the_rows_of_a_verdict_are_those_up_to_the_last_check_and_those_that_training_keeps():
    rows = [{"step": i, "epoch": i / 100, "seconds": 1.0, "d/loss": 1.0} for i in range(1, 6001)]
    rows.insert(5990, {"step": 5990, "epoch": 59.9, "eval/fid": 1.0, "unscheduled": True})
    kept = at_last_check(rows)
    assert kept[-1]["step"] == 5990 and "unscheduled" in kept[-1]
    assert kept == at_last_check(thinned(rows)) and kept[1]["step"] == 2 * THIN
    assert len(kept) == 2500 + (5990 - 2500) // THIN + 1
    unshown = [row | ({"unshown": True} if row["step"] % 2 else {}) for row in rows]
    assert at_last_check(unshown) == at_last_check([r for r in unshown if "unshown" not in r])


def test_the_floor_of_an_evaluation():
    side = {"score": 2.0, "coverage": 0.5}
    floor = {"samples": 9, "real": side, "generated": {"score": float("nan")}}
    found = {"floor/samples": 9, "floor/real": 2.0, "floor/real_coverage": 0.5}
    assert floor_row({"floor": floor}) == found
    assert floor_row({}) == floor_row({"floor": None}) == floor_row({"floor": {"real": 1}}) == {}


def test_the_same_sentence_in_report_table_status_and_sweep(tmp_path, capsys):
    folder = invent_pair(tmp_path / "runs/waveform/a-0", epochs=9, pictures=0)
    sentence = read_history(folder).verdict.sentence
    assert sentence.startswith("undecided: ") and "1 warning raised (d_loss_low)" in sentence
    assert sentence in render(read_history(folder))
    report.main([str(folder), "--no-page"])
    assert capsys.readouterr().out.count(sentence) == 1
    record = folder / "status.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"verdict": sentence}))
    run = SelectedRun(folder, read_run_files(folder), RunState("done"), None, None)
    status.show([run], tmp_path)
    assert capsys.readouterr().out.count(sentence) == 1
    assert status.as_dict(run)["verdict"] == sentence
    comparison.write(tmp_path / "sweep", [str(folder)], [{}])
    assert capsys.readouterr().out.count(sentence) == 1
    assert all(
        sentence in (tmp_path / "sweep" / f"report.{kind}").read_text() for kind in ("md", "csv")
    )
