"""The scores of a sweep's members: which may be compared, and what a search makes of them."""

import json

import pytest
import yaml
from run_folders import invent_pair as pair_run

from distgan.config import loading
from distgan.core.errors import ConfigError
from distgan.launchers.sweeps import comparison, search


@pytest.mark.gate
def test_scores_are_compared_where_they_were_measured_alike(tmp_path, capsys):
    """The one with target_gain=10 has the smaller error in units of the data, and the larger in its
    own.
    """
    members = [pair_run(tmp_path / name, epochs=9) for name in ("a", "b", "c")]
    for folder, gain, scale in zip(members, (1, 10, 10), (1.0, 3.0, 2.0), strict=True):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump(config | {"target_gain": gain}))
        status = json.loads((folder / "status.json").read_text())
        status["best"]["score"] *= scale
        (folder / "status.json").write_text(json.dumps(status))
    comparison.write(
        tmp_path / "sweep", [str(one) for one in members], [{"name": one.name} for one in members]
    )
    text = (tmp_path / "sweep" / "report.md").read_text()
    assert [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| ")][2:] == [
        "a",
        "c",
        "b",
    ]
    assert (
        "runs differ in target_gain. The table is sorted within" in text
        and "runs differ in target_gain" in capsys.readouterr().out
    )
    assert (tmp_path / "sweep" / "report.png").stat().st_size > 5000
    comparison.write(tmp_path / "alike", [str(one) for one in members[1:]], [{}, {}])
    assert "Not all" not in (tmp_path / "alike" / "report.md").read_text()


def test_a_search_reads_the_scores_of_every_system(tmp_path):
    folder = pair_run(tmp_path / "run", epochs=9)
    rows = [json.loads(text) for text in (folder / "journal.jsonl").read_text().splitlines()]
    assert search.scores(folder) == [
        (row["samples"], row["eval/l1"]) for row in rows if "eval/l1" in row
    ] and search.scores(folder)
    with pytest.raises(ConfigError, match="(?s)search.*target_gain changes how the score is meas"):
        section = {"trials": 3, "space": {"target_gain": [1, 10]}}
        loading.validate(search.Search, section, what="search")


def test_a_wrong_section_search_is_one_message():
    section = {"trials": True, "parallel": 0, "seed": 1.5, "space": {"a": 3, 1: [2]}, "x": 1}
    with pytest.raises(ConfigError) as error:
        loading.validate(search.Search, section, what="search")
    for key in ("trials", "parallel", "seed", "space", "x"):
        assert f"\n  {key}" in str(error.value)
