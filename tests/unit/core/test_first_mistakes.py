"""The likeliest first mistakes: one message each, with the right next line."""

import re
import shlex
import tarfile
import zipfile

import numpy as np
import pytest
import soundfile
from PIL import Image

from distgan import cli

MISTAKES = [
    ("train sagan data=photos", "distgan shard images data/photos --from photos"),
    ("run sagan data=photos --processes 2", "distgan shard images data/photos --from photos"),
    ("check photos", "distgan shard images data/photos --from photos"),
    ("index photos", "distgan shard images data/photos --from photos"),
    ("shard photos", "distgan shard images data/photos --from photos"),
    ("train photos", "distgan train sagan data=photos"),
    ("evaluate photos", "distgan evaluate REAL photos"),
    ("train sagan data=.", "name one of them: data=data/made"),
    ("train sagan data=photos/cats", "distgan shard images data/cats --from photos/cats"),
    ("train sagan data=sounds", "distgan shard timbre data/sounds --speech sounds"),
    ("index sounds", "distgan shard timbre data/sounds --speech sounds"),
    ("train sagan data=pairs", "distgan shard audio data/pairs --from pairs"),
    ("train sagan data=rows.csv", "distgan shard vectors data/rows --from rows.csv"),
    ("train sagan data=rows.npy", "distgan shard vectors data/rows --from rows.npy"),
    ("train sagan data=one.tar", "distgan index ."),
    ("index one.tar", "distgan index ."),
    ("train sagan data=tars", "distgan index tars"),
    ("train sagan data=photos.zip", "distgan shard images data/photos --from photos"),
    ("train sagan data=photos.tar.gz", "tar xf photos.tar.gz"),
    ("train sagan data=notes.txt", "a data set is a folder of shards"),
    ("train sagan data=empty", "distgan shard --help"),
    ("train sagan data=data", "name one of them: data=data/made"),
    ("train sagan data=runs", "distgan report runs"),
    ("train --conditional sagan data=photos", "--conditional: no such option\n"),
    ("train sagan data=photo", r"did you mean photos\?"),
    ("index nowhere", "distgan shard images nowhere --from FOLDER"),
    ("train sagan data=run", "distgan report run"),
    ("train sagan data photos", "write data=photos, without a space"),
    ("train sagan data = photos", "write data=photos, without a space"),
    ("train sagan data= photos", "write data=photos, without a space"),
    ("train sagan --data photos", "a setting has no dashes: data=photos"),
    ("train sagan --data=photos", "a setting has no dashes: data=photos"),
    ("train sagan --epochs=3 data=photos", "a setting has no dashes: epochs=3"),
    ("train sagan data=photos epoch=3", r"did you mean epochs\?"),
    ("train sagan data=photos watch.window=x", "watch.window"),
    ("train sagn data=photos", r"did you mean sagan\?"),
    ("train sagan", "data: missing; give it as data="),
    ("train", "RECIPE"),
    ("train my_gan.py data=photos", "distgan new my_gan.py"),
    ("sagan data=photos", "distgan train sagan data=photos"),
    ("my_gan.py data=photos", "distgan train my_gan.py data=photos"),
    ("trian sagan data=photos", r"did you mean train\?"),
    ("shard image out --from photos", r"did you mean images\?"),
    ("shard images out --from sounds", "has no images"),
    ("shard images out", "--from: missing"),
    ("report photos", "distgan train RECIPE data=FOLDER"),
]


@pytest.fixture
def things(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (
        "photos/cats",
        "sounds",
        "pairs/input",
        "pairs/target",
        "tars",
        "empty",
        "run",
        "data/made/train",
        "runs/a/samples",
    ):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (40, 30)).save("photos/cats/a.jpg")
    for path in ("sounds/a.wav", "pairs/input/a.wav", "pairs/target/a.wav"):
        soundfile.write(path, np.zeros(100), 8000)
    for path in ("one.tar", "tars/a.tar", "photos.tar.gz"):
        with tarfile.open(path, "w:gz" if path.endswith("gz") else "w") as tar:
            tar.add("photos/cats/a.jpg")
    with zipfile.ZipFile("photos.zip", "w") as archive:
        archive.write("photos/cats/a.jpg")
    np.save("rows.npy", np.zeros((3, 2), np.float32))
    for path in (
        "rows.csv",
        "notes.txt",
        "run/journal.jsonl",
        "runs/a/status.json",
        "data/made/dataset.json",
    ):
        (tmp_path / path).write_text("")


@pytest.mark.gate
def test_each_is_one_message_with_the_next_line(things, tmp_path, monkeypatch, capsys):
    wrong = []
    before = sorted(tmp_path.rglob("*"))
    for line, said in MISTAKES:
        monkeypatch.setattr("sys.argv", ["distgan", *shlex.split(line)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, error = capsys.readouterr()
        if left.value.code != 2 or out or error.count("error:") != 1 or not re.search(said, error):
            wrong.append(f"{line}: {left.value.code} {out}{error}")
    assert not wrong, "\n".join(wrong)
    assert sorted(tmp_path.rglob("*")) == before
