"""`make demo`, whole: shards, two processes through accelerate launch, validation, evaluation,
report.
"""

import json

from PIL import Image

from distgan.launchers.local import demo


def test_the_demo_learns_and_reports(tmp_path, capfd):
    assert demo.main(tmp_path) == 0
    rows = [
        json.loads(text) for text in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    ]
    scores = [row["eval/frechet_standin"] for row in rows if "eval/frechet_standin" in row]
    assert scores[0] > 5 * scores[-1], scores
    assert any("valid/overfit" in row for row in rows)
    assert (tmp_path / "run" / "DONE").exists()
    with Image.open(tmp_path / demo.GROWTH) as picture:
        columns, rows = (side / (2 * 33) for side in picture.size)
    assert (columns, rows) == (7, len(demo.SHOWN))  # before training, and every 5 of 30 epochs
    assert "frechet_standin" in (tmp_path / "run" / "report.html").read_text()
    assert "report.html in a browser" in capfd.readouterr().out
    assert demo.main(tmp_path) == 0
    assert "is finished" in capfd.readouterr().out
