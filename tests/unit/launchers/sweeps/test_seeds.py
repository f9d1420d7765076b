"""Members that differ in `seed` alone are repetitions."""

import statistics

import numpy as np
import pytest
from run_folders import invent_pair as pair_run

from distgan.launchers.sweeps import comparison, seeds


def test_mean_and_deviation_over_seeds():
    values = [{"ngf": ngf, "seed": seed} for ngf in (4, 8) for seed in (0, 1, 2)]
    assert seeds.groups(values) == [[0, 1, 2], [3, 4, 5]]
    assert seeds.groups([{"ngf": 4}, {"ngf": 8}]) == []
    scores = {0: 5.0, 1: 7.0, 3: 1.0, 4: 2.0, 5: 3.0}
    alike = dict.fromkeys(scores, ("frechet",))
    assert seeds.rows(values, ["ngf", "seed"], scores, alike) == [
        ("8", "3 of 3", "2 ± 1", "3, 4, 5"),
        ("4", "2 of 3", f"6 ± {statistics.stdev([5, 7]):.2g}", "0, 1, 2"),
    ]
    apart = seeds.rows(values, ["ngf"], scores, alike | {4: ("other",)})
    assert apart[-1][2] == "not comparable" and seeds.spread([3.0]) == "3"
    epochs, mean, deviation = seeds.curve(
        [np.array([[1, 2.0], [2, 4.0]]), np.array([[2, 8.0], [3, 1.0]])]
    )
    assert epochs.tolist() == [2] and mean.tolist() == [6]
    assert deviation.tolist() == pytest.approx([8**0.5])


@pytest.mark.gate
def test_the_report_folds_single_members(tmp_path, capsys):
    members = [str(pair_run(tmp_path / name, epochs=9)) for name in ("a", "b", "c")]
    values = [{"ngf": 4, "seed": 0}, {"ngf": 4, "seed": 1}, {"ngf": 8, "seed": 0}]
    comparison.write(tmp_path / "sweep", members, values)
    text = (tmp_path / "sweep" / "report.md").read_text()
    assert text.index("2 of 2") < text.index("<summary>3 members</summary>")
    assert " ± " in text and " ± " in capsys.readouterr().out
    assert len((tmp_path / "sweep" / "report.csv").read_text().splitlines()) == 4
    assert (tmp_path / "sweep" / "report.png").stat().st_size > 5000
