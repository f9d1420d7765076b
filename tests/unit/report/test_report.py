"""A report says what the run folder holds, in one file, and trusts nothing in it."""

import json
import math
import re
import subprocess
import sys

import pytest
import yaml
from PIL import Image
from reports import Reader, invent, page_of

from distgan.commands import report
from distgan.core.errors import RunError
from distgan.report.media import pick
from distgan.report.page import TEMPLATES, progress
from distgan.runs.history import find_runs, read_history

SVG = "http://www.w3.org"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = invent(tmp_path_factory.mktemp("runs") / "sagan" / "ngf=96-1a2b3c4d", side=16)
    return folder, page_of(folder)


def test_the_page_is_one_whole_file(finished):
    reader = Reader(finished[1])
    assert reader.links and all(link.startswith(("data:image/", "#")) for link in reader.links)
    assert not re.search(r"url\((?!#)|@import|<script|<link|<iframe", finished[1])
    assert list(finished[0].glob(".report*")) == []


def test_the_page_says_what_the_run_is(finished):
    folder, page = finished
    text = Reader(page).text
    for part in (
        "ngf=96-1a2b3c4d",
        "done",
        "frechet_standin",
        "epoch 600 of 600",
        "297 train, 33 held out",
        "16 = 2 ranks × 1 accumulation × 8",
        "torch 2.11.0",
        "distgan train sagan.yaml ngf=96",
        "seeded stand-in",
        "evaluate.samples",
        "d_overfitting",
        "0123456789abcdef",
        "cleaner images",
    ):
        assert part in text, part
    assert Reader(page).tags.count("img") == 9
    chosen, _, others = page[page.index("<h2>Settings") :].partition("<details>")
    assert chosen.count("<tr>") == 1 and "<td>ngf</td><td><code>96</code>" in chosen
    assert "others have their defaults" in others


def test_a_stand_in_score_is_never_called_by_another_name(finished, capsys):
    assert "FID" not in re.sub(r'"data:image[^"]*"', "", finished[1])
    report.main([str(finished[0]), "--no-page"])
    assert "FID" not in capsys.readouterr().out


def test_curves_have_names_of_their_own(finished):
    ids = re.findall(r'\bid="([^"]+)"', finished[1])
    assert len(ids) == len(set(ids)) and finished[1].count("<svg ") == 6
    for used in re.findall(r'(?:href="#|url\(#)([^")]+)', finished[1]):
        assert used in ids


def test_wall_time_counts_a_killed_attempt_to_its_last_event(finished):
    assert read_history(finished[0]).wall_s == 2 * 3600 + 1.5 * 3600


def test_the_table_has_a_line_for_each_run(tmp_path, capsys):
    for name in ("ngf=64-aaaaaaaa", "ngf=96-bbbbbbbb"):
        invent(tmp_path / "runs/sagan" / name, grids=0)
    (tmp_path / "runs/sagan/latest").symlink_to("ngf=64-aaaaaaaa")
    assert report.main([str(tmp_path / "runs"), str(tmp_path / "runs/sagan/ngf=96-bbbbbbbb")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["run", "state", "epoch"]
    assert [line.split()[0] for line in lines[1:3]] == [
        "sagan/ngf=64-aaaaaaaa",
        "sagan/ngf=96-bbbbbbbb",
    ]
    assert "frechet_standin" in lines[1] and lines[4].split() == ["run", "verdict"]
    assert all(line.startswith("sagan/") and "d_overfitting" in line for line in lines[5:7])
    assert [line.rpartition("/")[2] for line in lines[7:]] == [
        *("report.html", "report.html", "comparison.html")
    ]
    page = (tmp_path / "runs/sagan/comparison.html").read_text()
    reader = Reader(page)
    assert "Settings that differ" not in reader.text and page.count('role="img"') == 4
    assert reader.links[:2] == ["ngf%3D64-aaaaaaaa/report.html", "ngf%3D96-bbbbbbbb/report.html"]
    assert "<script" not in page and "http" not in page.replace("http-equiv", "").replace(SVG, "")


@pytest.mark.gate
def test_runs_are_compared_best_first_with_what_differs(tmp_path, capsys):
    for ngf, seed, score in ((64, 3, 50.0), (96, 4, 20.0)):
        folder = invent(
            tmp_path / f"x/ngf={ngf}", grids=1, side=16, overrides={"ngf": ngf, "seed": seed}
        )
        status = json.loads((folder / "status.json").read_text())
        status["best"]["score"] = score
        (folder / "status.json").write_text(json.dumps(status))
    folder = invent(tmp_path / "x/<b>hostile", grids=0)
    (folder / "status.json").write_text("{}")
    out = tmp_path / "both.html"
    assert report.main([str(tmp_path / "x"), "--out", str(out)]) == 0
    text = Reader(out.read_text()).text
    assert text.index("ngf=96") < text.index("ngf=64")
    settings = text[text.index("Settings that differ") :]
    assert "".join(settings.split()).startswith("Settingsthatdifferrunseedngf")
    assert "<b>hostile" in text and "<b>hostile" not in out.read_text()
    with pytest.raises(RunError, match="both.html"):
        report.main([str(tmp_path / "x"), "--out", str(out / "page.html")])


@pytest.mark.parametrize(
    "journal",
    [
        "",
        '{"step": 1, "samples": 16, "epoch": 0.05, "seconds": 2.0, "d/loss": 1.4, "g/loss": 0.7}\n',
        '{"step": 1, "sam',
    ],
)
def test_a_run_that_has_just_begun(tmp_path, journal, capsys):
    folder = tmp_path / "runs/sagan/x-00000000"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(
        json.dumps(
            {
                "state": "running",
                "cause": None,
                "attempt": 0,
                "step": 0,
                "samples": 0,
                "epoch": 0.0,
                "best": None,
            }
        )
    )
    (folder / "journal.jsonl").write_text(journal)
    text = Reader(page_of(folder)).text
    assert "running" in text and ("not evaluated yet" in text or "just begun" in text)
    assert "sagan/x-00000000" in capsys.readouterr().out


def test_a_torn_journal_and_damaged_pictures_are_borne(tmp_path):
    folder = invent(tmp_path / "sagan/torn-00000000", grids=3, side=16)
    with open(folder / "journal.jsonl", "a") as journal:
        journal.write('{"step": 99999, "epo')
    grids = sorted(folder.glob("samples/*.png"))
    grids[0].write_bytes(grids[0].read_bytes()[:300])
    grids[1].write_bytes(b"no picture")
    assert page_of(folder).count("cannot be read") == 2


def test_numbers_that_are_not_finite_are_drawn_and_said(tmp_path):
    folder = invent(tmp_path / "sagan/nan-00000000", grids=0)
    with open(folder / "journal.jsonl", "a") as journal:
        for step in range(20000, 20005):
            journal.write(
                json.dumps(
                    {
                        "step": step,
                        "samples": 1,
                        "epoch": step / 18,
                        "seconds": 1.0,
                        "d/loss": math.nan,
                        "eval/frechet_standin": math.inf,
                    }
                )
                + "\n"
            )
    assert (
        "NaN or infinity in 5 of the last 25 lines: d/loss, eval/frechet_standin"
        in Reader(page_of(folder)).text
    )


def test_text_of_files_is_no_markup(tmp_path):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    folder = invent(
        tmp_path / "sagan" / "<b>x<b>&-00000000",
        grids=2,
        side=16,
        overrides={"data": evil, evil.replace("/", ""): 1},
    )
    status = json.loads((folder / "status.json").read_text()) | {"state": "failed", "cause": evil}
    status["best"]["metric"] = evil
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "events.jsonl").write_text(
        json.dumps({"time": evil, "event": evil, evil: evil}) + "\n" + evil + "\n"
    )
    attempt = dict.fromkeys(("host", "cause", "device", "started", "processes"), evil) | {
        "argv": [evil],
        "versions": {evil: evil},
        "git": {"commit": evil},
    }
    (folder / "attempts/001/attempt.json").write_text(json.dumps(attempt))
    evaluation = next(folder.glob("eval/*.json"))
    evaluation.write_text(
        json.dumps(dict.fromkeys(("metric", "samples", "reals", "extractor"), evil))
    )
    reader = Reader(page_of(folder))
    assert "script" not in reader.tags and all(
        link.startswith(("data:image/", "#")) for link in reader.links
    )
    assert "<b>x" in reader.text and evil in reader.text


def test_pictures_outside_the_run_are_not_followed(tmp_path):
    folder = invent(tmp_path / "sagan/link-00000000", grids=0)
    Image.new("L", (8, 8)).save(tmp_path / "private.png")
    (folder / "samples/00000007.png").symlink_to(tmp_path / "private.png")
    (folder / "real.png").symlink_to(tmp_path / "private.png")
    (folder / "samples/00000000.png").write_text("no picture")
    (tmp_path / "private.json").write_text('{"metric": "private"}')
    (folder / "eval/00000007.json").symlink_to(tmp_path / "private.json")
    page = page_of(folder)
    assert "<img" not in page and "private" not in page and "cannot be read" in page


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"no run and holds none.*status\.json.*distgan train"):
        report.main([str(tmp_path)])
    with pytest.raises(RunError, match="no folder"):
        find_runs([tmp_path / "none"])


def test_damaged_files_are_named(tmp_path):
    folder = invent(tmp_path / "sagan/damaged-00000000", grids=0)
    (folder / "config.yaml").write_text("watch: {score_flat_epochs: -1}")
    with pytest.raises(RunError, match="section watch"):
        report.main([str(folder)])
    (folder / "config.yaml").write_text("[")
    with pytest.raises(RunError, match=r"config\.yaml is damaged"):
        report.main([str(folder)])


def test_a_silent_run_is_doubted(tmp_path):
    folder = invent(tmp_path / "sagan/silent-00000000", grids=0)
    status = json.loads((folder / "status.json").read_text()) | {"state": "running"}
    (folder / "status.json").write_text(json.dumps(status))
    assert "no heartbeat for" in progress(read_history(folder))


def test_the_grids_picked_are_the_first_the_best_the_last_and_some_between():
    steps = list(range(0, 2000, 10))
    chosen = pick(steps, best=1234)
    assert len(chosen) == 8 and {0, 1230, 1990} <= set(chosen)
    assert max(b - a for a, b in zip(chosen, chosen[1:], strict=False)) < 600
    assert pick([10, 20], None) == [10, 20] and pick([], None) == []


@pytest.mark.gate
def test_no_torch_is_imported(finished):
    code = (
        "import sys\nsys.modules.update(dict.fromkeys(('torch', 'accelerate', 'torchvision',"
        " 'torchaudio')))\nfrom distgan.commands import report\nsys.exit(report.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(finished[0])], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("report.html")


def test_one_broken_run_does_not_hide_the_others(tmp_path, capsys):
    good, bad = invent(tmp_path / "a", grids=1), invent(tmp_path / "b", grids=1)
    (bad / "status.json").write_text('{"epoch": "x", "samples": "y", "best": 3}')
    assert report.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"wrote {good / 'report.html'}" in out
    assert f"warning: {bad} cannot be read" in out


def test_text_of_scores_is_no_markup(tmp_path):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    folder = invent(tmp_path / "sagan/scores-00000000", grids=0, lines=9)
    (folder / "eval/asked").mkdir()
    image = dict.fromkeys(("step", "samples", "reals", "metric", "score", "nearest", "time"), evil)
    image |= {"made_with": {"extractor": evil}, f"kernel_{evil}": evil}
    image["floor"] = {"samples": evil, "real": {"score": evil}, "generated": {"score": evil}}
    row = dict.fromkeys(("class", "reals", "samples", evil), evil) | {"floor": image["floor"]}
    classes = dict.fromkeys(("column", "features", "metric", "kernel", "fewest"), evil)
    image["by_class"] = classes | {"rows": [row]}
    sound = dict.fromkeys(("step", "samples", "time"), evil) | {"kind": "sound"}
    mean = {"mean": evil, "interval": [evil, evil], "n": evil, "failed": evil}
    sound |= {"means": {evil: mean}, "conditions": {evil: {evil: mean}}}
    sound["distances"] = {evil: {"value": evil, "frames": evil}}
    for name, evaluation in (("image", image), ("sound", sound)):
        (folder / f"eval/asked/{name}.json").write_text(json.dumps(evaluation))
    reader = Reader(page_of(folder))
    assert reader.tags.count("script") == reader.tags.count("img") == 0
    assert reader.text.count(evil) > 30
    assert "Scores by class" in reader.text and "Measures of held-out clips" in reader.text


def test_only_the_drawings_are_inserted_as_they_are():
    assert TEMPLATES.autoescape is True
    names = TEMPLATES.list_templates(extensions=["html"])
    sources = {name: TEMPLATES.loader.get_source(TEMPLATES, name)[0] for name in names}
    assert {name for name, text in sources.items() if re.search(r"\|\s*safe", text)} == {
        "curves.html",
        "hero.html",
    }
    assert not any("autoescape" in text for text in sources.values())


def test_the_guide_names_only_what_the_recipe_can_move(tmp_path):
    moves = [{"setting": "ngf", "factor": 2}, {"setting": "depth", "add": 1}]
    guide = {"d_loss_low": moves, "copies": [{"setting": "depth", "add": 2}]}
    folder = invent(tmp_path / "x/y", lines=2, grids=0)
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"watch": {"moves": guide}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    text = Reader(page_of(folder)).text
    text = text[text.index("Tuning guide") : text.index("Environment")]
    assert "setting: ngf" in text and "depth" not in text and "copies" not in text


def test_settings_of_a_run_file_are_shown_as_changed(tmp_path):
    folder = invent(tmp_path / "x/y", lines=2, grids=0)
    path = folder / "attempts/001/attempt.json"
    facts = json.loads(path.read_text()) | {"changed": ["latent", 7, "unknown", "clip"]}
    path.write_text(json.dumps(facts))
    page = page_of(folder)
    chosen = page[page.index("<h2>Settings") :].partition("<details>")[0]
    assert re.findall("<tr><td>([^<]*)", chosen) == ["latent", "clip", "ngf"]
