"""Reports on runs of pairs: curves, what watch did, pictures, sounds and results, and that hostile
files in them stay harmless.
"""

import json
import re
import shutil

import numpy as np
import pytest
from markupsafe import escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from reports import Reader, invent, page_of
from run_folders import clip, invent_pair, wav

from distgan.commands import report
from distgan.core.errors import RunError
from distgan.monitor.interventions import interventions, marks
from distgan.monitor.settings import Watch
from distgan.monitor.success import verdict
from distgan.monitor.success.criterion import Criterion
from distgan.outputs.signal_plots import GREEN, RED
from distgan.report import media
from distgan.report.curves import _losses, _paired, curves
from distgan.report.page import TEMPLATES
from distgan.runs.history import read_history

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def links(page):
    reader = Reader(page)
    assert "script" not in reader.tags and all(
        link.startswith(("data:image/", "data:audio/wav;base64,", "#")) for link in reader.links
    )
    return [link for link in reader.links if not link.startswith("#")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """{recipe: (folder, page)} of a waveform and a timbre run."""
    root = tmp_path_factory.mktemp("runs")
    folders = {
        "waveform": invent_pair(root / "waveform/a-00000000", pictures=2),
        "timbre": invent_pair(
            root / "timbre/b-00000000", "timbre", start=5, sound=True, results=True, pictures=1
        ),
    }
    return {name: (folder, page_of(folder)) for name, folder in folders.items()}


@pytest.fixture
def plain(tmp_path):
    return invent_pair(tmp_path / "waveform/c-00000000", epochs=4, pictures=0)


def axes():
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def lines_of(values, key, start=0, per_epoch=1, **more):
    return [
        {
            "step": start + i + 1,
            "epoch": (start + i + 1) / per_epoch,
            "seconds": 1.0,
            key: value,
            **more,
        }
        for i, value in enumerate(values)
    ]


# ---- the page
@pytest.mark.gate
def test_clips_are_called_clips(made):
    text = Reader(made["waveform"][1]).text
    for part in (
        "clips seen",
        "3,840",
        "clips/s",
        "128 train, 24 held out",
        "best l1",
        "812.5 MB",
        "the same held-out clips",
        "over 24 held-out clips, lower is better",
    ):
        assert part in text, part
    assert "images" not in text and "noise" not in text.replace("aug_noise", "")


def test_what_watch_did_is_told(made):
    text = Reader(made["waveform"][1]).text
    for part in (
        "Interventions",
        "d_lr 1e-4→5e-5",
        "from step 150 back to 120; g_lr 2e-4→1e-4, d_lr 5e-5→2.5e-5",
        "settings changed",
        "went back",
        "0.0001 → 5e-5 in flight",
    ):
        assert part in text, part
    assert (
        "Interventions"
        not in Reader(
            page_of(
                invent_pair(
                    made["waveform"][0].parent / "quiet-0", epochs=1, pictures=0, quiet=True
                )
            )
        ).text
    )


def test_criteria_are_told_one_by_one(plain, monkeypatch):
    found = [
        Criterion("D loss in range", True, "0.31", "0.2–0.7"),
        Criterion("no warning", False, EVIL, "none"),
        Criterion("the gap", None, "no validation yet", "below 0.1"),
        Criterion("D(x)", None, "0.45", "0.5–0.8", unreachable=True),
    ]
    monkeypatch.setattr(
        verdict,
        "criteria",
        lambda rows, config, watch, warnings: (
            found if [w["rule"] for w in warnings] == ["d_loss_low"] and config else []
        ),
    )
    page = page_of(plain)
    text = Reader(page).text
    assert "Success criteria" in text and "1 of 4 success criteria met" in text
    states = ["met", "not met", "not measured", "unreachable"]
    assert re.findall(r">(met|not met|not measured|unreachable)</td>", page) == states
    assert (
        links(page) == []
        and EVIL in text
        and "1 of 4" in report.line(read_history(plain))["verdict"]
    )


def test_the_drawings_are_those_with_data(made):
    titles = re.findall(r'role="img" aria-label="([^"]+)"', made["waveform"][1])
    assert titles == [
        "Score",
        "Losses",
        "L1",
        "GAN loss of G",
        "Scores of D",
        "Gradient norms",
        "Learning rates",
    ]
    titles = re.findall(r'role="img" aria-label="([^"]+)"', made["timbre"][1])
    assert titles == [
        "Score",
        "Losses",
        "L1",
        "STFT",
        "SI-SDR in dB",
        "Log-spectral distance in dB",
        "GAN loss of G",
        "Scores of D",
        "Gradient norms",
        "Learning rates",
    ]


# ---- curves
@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("g/l1", "L1"),
        ("valid/l1", "L1"),
        ("valid/stft", "STFT"),
        ("valid/input_si_sdr", "SI-SDR in dB"),
        ("g/adversarial", "GAN loss of G"),
        ("valid/adversarial", "GAN loss of G"),
        ("d/real_score", "Scores of D"),
        ("d/wasserstein", "Wasserstein estimate"),
        ("valid/wasserstein", "Wasserstein estimate"),
        ("valid/diversity", "Diversity of samples"),
        ("d/penalty", "Gradient penalty"),
        ("d/r1", "Gradient penalty"),
        ("eval/anything", "Score"),
        ("d/told_apart", "Share that D tells apart"),
        ("d/real_prob", "D(x) and D(G(z))"),
    ],
)
def test_a_key_has_its_drawing(key, title):
    assert list(curves(lines_of([0.3, 0.2, 0.4], key), Watch())) == [title]


LATER = pytest.mark.gate  # a drawing costs half a second


@pytest.mark.parametrize("span", [1, 5, *(pytest.param(x, marks=LATER) for x in (30, 500, 1e6))])
@pytest.mark.parametrize(
    "low", [1e-7, 7.0, *(pytest.param(x, marks=LATER) for x in (3e-4, 0.02, 4e5))]
)
def test_numbers_on_axes_are_plain(low, span):
    drawn = curves(lines_of(np.geomspace(low, low * span, 9).tolist(), "d/penalty"), Watch())[
        "Gradient penalty"
    ]
    assert "mathdefault" not in drawn and "$" not in drawn
    assert len(re.findall(r"<text [^>]*>[-−+0-9.e]+</text>", drawn)) > 6


def test_nothing_is_drawn_of_nothing():
    assert (
        curves([], Watch()) == {}
        and curves(lines_of([1.0], "seconds_slept"), Watch(), marks=[(1.0, "adapt")]) == {}
    )


@pytest.mark.parametrize(
    ("watch", "expected"),
    [
        ({"healthy": {"d/loss": (0.2, 0.7)}}, (0.2, 0.7)),
        ({"healthy": {}, "d_loss_floor": 0.1, "d_loss_strong": 0.1}, 0.2),
        ({"healthy": {}, "d_loss_strong": None}, None),
        ({"healthy": {"d/loss": (None, 0.7)}}, 0.7),
        ({"healthy": {"d/loss": (0.2, 0.7)}, "unbounded": True}, None),
    ],
)
def test_the_healthy_range_of_the_d_loss_is_that_of_watch(watch, expected):
    ax = axes()
    assert _losses(ax, lines_of([0.5, 0.4, 0.6], "d/loss"), Watch(**watch))
    spans = [
        tuple(patch.get_extents().transformed(ax.transData.inverted()).intervaly)
        for patch in ax.patches
    ]
    lines = [line.get_ydata()[0] for line in ax.lines if "healthy" in line.get_label()]
    assert (
        np.allclose(spans, [expected]) and not lines
        if isinstance(expected, tuple)
        else not spans and lines == ([] if expected is None else [pytest.approx(expected)])
    )


@pytest.mark.parametrize(("valid", "beyond"), [(0.35, False), (0.45, True)])
def test_the_gap_is_red_where_it_is_not_healthy(valid, beyond):
    rows = [
        row
        for i in range(5)
        for row in (
            lines_of([0.3], "g/l1", i)[0],
            {"step": i + 1, "epoch": i + 1, "valid/l1": valid},
        )
    ]
    ax = axes()
    assert _paired(ax, rows, Watch(), "l1")
    areas = {
        to_hex(area.get_facecolor()[0]): sum(len(path.vertices) for path in area.get_paths())
        for area in ax.collections
    }
    assert areas[GREEN] > 0 and (areas.get(RED, 0) > 0) == beyond == (
        "gap beyond" in [area.get_label() for area in ax.collections]
    )


def test_marks_stand_where_watch_changed_something():
    rows = lines_of([0.3] * 9, "d/loss") + [
        {"step": 2, "epoch": 2.0, "adapt/g_lr": 1e-5},
        {"step": 9, "epoch": 4.0, "adapt/d_lr": 1e-5},
        {"step": 9, "epoch": 7.0, "adapt/aug_scale_range": [0.9, 1.1]},
    ]
    events = [
        {"event": "adapt", "epoch": 4.0, "rule": "x", "changes": {"d_lr": 1e-5}},
        {"event": "rollback", "epoch": 2.0, "rule": "y", "from_step": 9, "to_step": 2},
        {"event": "best", "epoch": 1.0},
    ]
    assert marks(interventions(events), rows) == [(2.0, "rollback"), (4.0, "adapt"), (7.0, "adapt")]
    drawn = curves(rows, Watch(), marks=marks(interventions(events), rows))["Losses"]
    assert drawn.count("settings changed") == 1 and drawn.count("went back") == 1


def test_a_run_that_watch_stopped():
    (one,) = interventions(
        [
            {
                "event": "done",
                "epoch": 7.0,
                "early": "watch.on_trouble=stop, because of d_loss_low",
            },
            {"event": "done", "early": None},
            {"event": "done", "early": "no better l1 for 20 epochs"},
            {"event": "done", "early": True},
        ]
    )
    assert (one.action, one.rule, one.epoch) == ("stop", "d_loss_low", 7.0)


def test_the_best_of_a_run_that_a_validation_judges(plain):
    (plain / "status.json").write_text('{"state": "running"}')
    run = read_history(plain)
    scores = {row["step"]: row["eval/l1"] for row in run.rows if "eval/l1" in row}
    assert (
        run.metric == "l1" and run.best["score"] == min(scores.values()) == scores[run.best["step"]]
    )


def test_speed_of_journals_of_version_0_1(plain):
    text = (plain / "journal.jsonl").read_text()
    (plain / "journal.jsonl").write_text(text.replace("samples_per_second", "images_per_second"))
    assert read_history(plain).speed == 40.0


def test_the_kind_is_told_by_the_journal_where_no_attempt_tells(plain):
    shutil.rmtree(plain / "attempts")
    assert read_history(plain).kind == "pair"


# ---- results and sounds
def test_results_are_listed(made):
    text = Reader(made["timbre"][1]).text
    for part in (
        "Results",
        "7 files (6 png, 1 csv)",
        "3 of 6 pictures",
        "measures.csv",
        "si_sdr",
        "speaker7",
        "speaker2.png",
    ):
        assert part in text, part
    assert "speaker8" not in text


@pytest.mark.gate
def test_many_small_pictures(plain):
    (plain / "results").mkdir()
    for i in range(50):
        Image.new("RGB", (64, 64), (i, 0, 0)).save(plain / f"results/{i:05}.png")
    page = page_of(plain)
    assert "36 of 50 pictures" in page and len(links(page)) == 36


@pytest.mark.gate
def test_a_sheet_before_small_pictures(plain):
    (plain / "results/images").mkdir(parents=True)
    Image.new("RGB", (520, 520)).save(plain / "results/grid.png")
    for i in range(50):
        Image.new("RGB", (64, 64), (i, 0, 0)).save(plain / f"results/images/{i:05}.png")
    page = page_of(plain)
    assert (
        "37 of 51 pictures" in page
        and len(links(page)) == 37
        and page.count("max-width: 520px") == 1
    )


@pytest.mark.gate
def test_the_first_sounds_have_spectrograms(plain, monkeypatch):
    (plain / "results").mkdir()
    for i in range(5):
        wav(plain / f"results/{i}.after.wav", clip(0))
    monkeypatch.setattr(media, "MAX_SPECTROGRAMS", 3)
    page = page_of(plain)
    assert page.count('alt="spectrogram"') == 3 and page.count("<audio") == 5
    assert media.spectrogram(plain / "results/missing.wav") is None
    wav(plain / "results/short.wav", clip(0)[:100])
    assert media.spectrogram(plain / "results/short.wav") is None


def test_sounds_can_be_heard(made):
    page = made["timbre"][1]
    assert (
        "media-src data:" in page
        and sum(link.startswith("data:audio/wav") for link in links(page)) == 6
    )
    assert re.findall("<th>(before|after|clean)</th>", page) == [
        "before",
        "after",
        "clean",
    ]  # as they were made, not by name


@pytest.mark.gate
def test_sounds_of_results_take_the_place_of_those_beside_pictures(plain):
    (plain / "results").mkdir()
    wav(plain / "results/speaker.after.wav", clip(0))
    Image.new("L", (8, 8)).save(plain / "samples/00000007.png")
    wav(plain / "samples/00000007.speaker.after.wav", clip(1))
    run = read_history(plain)
    assert [path.name for path in run.sounds] == ["00000007.speaker.after.wav"]
    assert [link for link in links(page_of(plain)) if "audio" in link] == [
        media.sound(plain / "results/speaker.after.wav")
    ]


# ---- hostile files
@pytest.mark.gate
def test_a_huge_sound_and_what_is_none_stay_outside(plain):
    (plain / "results").mkdir()
    wav(plain / "results/a.small.wav", clip(0))
    wav(plain / "results/b.huge.wav", np.zeros(media.MAX_SOUND_BYTES))
    (plain / "results/c.none.wav").write_text("<script>")
    page = page_of(plain)
    assert (
        len(links(page)) == 2  # a sound and its spectrogram
        and "1 of 3 clips are too large to be embedded" in page
        and "cannot be read" in page
    )
    assert len(page) < media.MAX_SOUND_BYTES


@pytest.mark.gate
def test_links_in_a_run_are_not_followed(plain, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    wav(secret / "x.wav", clip(0))
    (secret / "x.csv").write_text("secret,words")
    Image.new("L", (8, 8)).save(secret / "x.png")
    Image.new("L", (8, 8)).save(plain / "samples/00000007.png")
    (plain / "samples/00000007.x.wav").symlink_to(secret / "x.wav")
    (plain / "results").symlink_to(secret)
    page = page_of(plain)
    assert len(links(page)) == 1 and "secret" not in page and "Results" not in page
    (plain / "results").unlink()
    (plain / "results").mkdir()
    for name in ("x.wav", "x.csv", "x.png"):
        (plain / "results" / name).symlink_to(secret / name)
    (plain / "results/folder").symlink_to(secret)
    (plain / "results/inside.csv").symlink_to(plain / "overrides.yaml")
    page = page_of(plain)
    assert len(links(page)) == 1 and "secret" not in page and "Results" not in page


def test_text_of_results_and_events_is_no_markup(plain):
    (plain / "results").mkdir()
    name = EVIL.replace("/", "")
    (plain / f"results/{name}.csv").write_text(f"{EVIL},b\n{EVIL},\0\n")
    (plain / f"results/{name}").write_text("x")
    wav(plain / f"results/{name}.{name}.wav", clip(0))
    (plain / f"results/{name}.png").write_bytes(b"no picture")
    Image.new("L", (512, 8)).save(plain / f"results/a{name}.png")
    events = [
        {
            "event": action,
            "time": EVIL,
            "epoch": epoch,
            "rule": EVIL,
            "moves": moves,
            "changes": changes,
            "from_step": EVIL,
        }
        for action, epoch, moves, changes in (
            ("adapt", EVIL, EVIL, None),
            ("rollback", 1e999, None, {EVIL: EVIL}),
            ("stop", 2, [EVIL], 3),
            ("adapt", None, None, [1]),
        )
    ]
    (plain / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    with open(plain / "journal.jsonl", "a") as journal:
        journal.write(
            json.dumps(
                {
                    "step": 999,
                    "epoch": 9.0,
                    f"adapt/{EVIL}": EVIL,
                    f"eval/$\\frac{{${EVIL}": 1.0,
                    "eval/名": 2.0,
                }
            )
            + "\n"
        )
    page = page_of(plain)
    assert len(links(page)) == 3 and EVIL in Reader(page).text and str(escape(EVIL)) in page


@pytest.mark.parametrize(
    "text",
    ["", "\n", "a" * 10**6, "a,b\n" * 10**5, ",".join(map(str, range(10**4))), '"' + "x" * 10**6],
)
def test_tables_of_any_shape(plain, text):
    (plain / "results").mkdir()
    (plain / "results/t.csv").write_text(text)
    results = media.results(read_history(plain))
    section = TEMPLATES.get_template("results.html").render(results=results)
    assert "t.csv" in section and len(section) < 30_000


# ---- the table
def test_columns_are_those_that_any_run_has(tmp_path, capsys):
    invent_pair(tmp_path / "waveform/a-0", epochs=2, pictures=0)
    report.main([str(tmp_path), "--no-page"])
    assert "D(x)" not in capsys.readouterr().out
    invent(tmp_path / "sagan/b-0", grids=0)
    report.main([str(tmp_path), "--no-page"])
    heads, *rows = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert (
        all(head in heads for head in ("D(x)", "L1", "valid L1", "samples/s"))
        and "SI-SDR" not in heads
    )
    assert all("–" in row for row in rows)


def test_many_runs_have_a_bar(tmp_path, capsys):
    for i in range(report.FEW + 1):
        (tmp_path / f"r{i}").mkdir()
        (tmp_path / f"r{i}/status.json").write_text("{}")
    report.main([str(tmp_path), "--no-page"])
    assert "reading: 5/5 runs" in capsys.readouterr().out


@pytest.mark.gate
def test_a_page_that_cannot_be_written_does_not_hide_the_others(tmp_path, capsys):
    for name in "ab":
        invent_pair(tmp_path / name, epochs=1, pictures=0)
    (tmp_path / "a/report.html").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*a/report\.html"):
        report.main([str(tmp_path)])
    assert f"wrote {tmp_path / 'b/report.html'}" in capsys.readouterr().out
    assert not list(tmp_path.glob("*/.report*"))
