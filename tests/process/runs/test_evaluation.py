"""Images and sounds are measured alike by any number of processes."""

import csv
import json
import re
import shutil
import sys

import evaluation
import pytest
from processes import BIN, ROOT, line, run
from shard_sets import copy_data
from sounds import asked, made_voices, voice_folders

from distgan.commands import evaluate, report


@pytest.fixture(scope="module")
def voices():
    return made_voices()


@pytest.fixture
def folders(tmp_path, voices):
    return voice_folders(tmp_path, voices)


def test_the_same_bits_with_1_2_3_and_5_processes(particles, tmp_path):
    """All metrics, both paths, 1,003 images that none of 2, 3 and 5 divides, and other threads in
    every process.
    """
    whole = json.loads(
        json.dumps(evaluation.results(str(copy_data(particles, tmp_path / "data1"))))
    )
    assert {
        "score",
        "kernel_standin",
        "precision",
        "recall",
        "density",
        "coverage",
        "sliced_wasserstein",
        "nearest",
        "floor",
    } <= whole[0].keys()
    assert [one["samples"] for one in whole] == [1003, 1003, 41] and whole[1][
        "score"
    ] == pytest.approx(whole[0]["score"], rel=1e-8)
    for size in (2, 3, 5):
        data = copy_data(particles, tmp_path / f"data{size}")
        start = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(size),
            str(ROOT / "tests" / "programs" / "evaluation.py"),
        ]
        run(start, str(data), str(tmp_path / f"{size}.json"), cwd=ROOT, OMP_NUM_THREADS=str(size))
        assert json.loads((tmp_path / f"{size}.json").read_text()) == whole, size


def test_the_verb_in_two_processes_and_the_same_line_again(trained):
    home, _ = trained
    lines = [
        run(
            [str(BIN / "distgan"), "evaluate"],
            str(home / "run"),
            f"--data={home / 'data'}",
            "--n",
            "37",
            "--device",
            "cpu",
            *more,
            cwd=ROOT,
        )
        for more in ([], ["--processes", "2"])
    ]
    assert all("frechet_standin" in text and "floor: 27 real samples" in text for text in lines)
    files = list((home / "run" / "eval" / "asked").glob("*.json"))
    assert (
        len(files) == 1
        and f"written: {files[0]}" in lines[0]
        and f"written: {files[0]}" in lines[1]
    )  # the same question has the same answer, in one file
    said = json.loads(files[0].read_text())
    assert said["processes"] == 2 and said["floor"]["samples"] == 27
    tables = [
        [
            row
            for row in text.splitlines()
            if row.startswith(("frechet", "kernel", "precision", "sliced", "nearest"))
        ]
        for text in lines
    ]
    assert tables[0] == tables[1] and len(tables[0]) == 6  # five numbers and the judgement


def test_folders_at_any_number_of_processes(folders):
    """1, 2, 4 and 5 real processes: the same bits, in every number of every clip. One clip has no
    counterpart, and is part of the Fréchet distance alone.
    """
    shutil.copy(folders / "denoised/1.wav", folders / "repaired/more.wav")
    found = {}
    for processes in (1, 2, 4, 5):
        out = folders / f"of{processes}.json"
        words = asked(
            folders, f"--out={out}", "--metrics", "si_sdr,lsd,mcd,stft,frechet", "--device", "cpu"
        )
        if processes == 1:
            assert evaluate.main(words) == 0
        else:
            run(
                [
                    str(BIN / "torchrun"),
                    "--standalone",
                    "--nproc-per-node",
                    str(processes),
                    "-m",
                    "distgan",
                    "evaluate",
                ],
                *words,
                cwd=folders,
            )
        about = json.loads(out.read_text())
        found[processes] = {
            key: about[key] for key in ("clips", "means", "conditions", "distances", "delay")
        }
        with open(out.with_suffix(".csv"), newline="") as file:
            assert [row["key"] for row in csv.DictReader(file)] == [*"01234", "more"]
    assert found[1] == found[2] == found[4] == found[5]
    distance = found[1]["distances"]["frechet_logmel"]
    assert distance["value"] > 0 and distance["frames"] > distance["target_frames"]
    assert found[1]["means"]["lsd"]["n"] == 5 and found[1]["means"]["lsd"]["failed"] == 1


def test_a_run_is_measured_on_its_whole_validation_set(recordings, tmp_path):
    folder = tmp_path / "run"
    words = [
        "timbre",
        f"data={recordings}",
        f"machine.folder={folder}",
        "machine.device=cpu",
        "epochs=2",
        "segment_length=256",
        "stft_resolutions=[[64,16,64]]",
        "g_width=16",
        "g_fft=64",
        "g_hop=16",
        "d_width=4",
        "batch=6",
        "gan_start_epoch=1",
        "validate_every=1",
    ]
    run(line("python"), *words, cwd=tmp_path)
    assert evaluate.main([str(folder), "--device", "cpu"]) == 0
    (path,) = (folder / "eval/asked").glob("*.json")
    about = json.loads(path.read_text())
    assert (
        about["samples"] == len(about["clips"]) == 6
        and about["averaged"] in (True, False)
        and about["stft_resolutions"] == [[64, 16, 64]]
    )
    rows = [json.loads(text) for text in (folder / "journal.jsonl").read_text().splitlines()]
    last = [row for row in rows if "valid/lsd" in row and row["step"] == about["step"]][-1]
    for name in ("si_sdr", "lsd", "stft", "l1", "input_si_sdr", "input_lsd"):
        assert about["means"][name]["mean"] == pytest.approx(last[f"valid/{name}"], rel=1e-4), name
    assert report.main([str(folder)]) == 0
    page = re.sub(r"data:[a-z]+/[a-z]+;base64,[^\"]+", "", (folder / "report.html").read_text())
    assert (
        "Measures of held-out clips" in page
        and "frechet_logmel" in page
        and not re.search(r"\bfid\b", page, re.IGNORECASE)
    )
