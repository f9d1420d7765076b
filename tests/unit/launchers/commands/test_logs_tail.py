"""`distgan logs --tail N`."""

from distgan.launchers.commands import logs


def test_the_last_lines(tmp_path, capsys):
    for number in range(2):
        folder = tmp_path / "runs/p/r/attempts" / f"{number:03d}"
        folder.mkdir(parents=True)
        lines = [f"{number} line {i} of {'even' if i % 2 == 0 else 'odd'}\n" for i in range(5)]
        (folder / "rank0.log").write_text("".join(lines))

    def shown(*words):
        target, runs = str(tmp_path / "runs/p/r"), str(tmp_path / "runs")
        assert logs.main([target, "--runs", runs, *words]) == 0
        return [line.partition(" of")[0] for line in capsys.readouterr().out.splitlines() if line]

    assert shown("--tail", "2") == ["1 line 3", "1 line 4"]
    assert shown("--tail", "9") == [f"1 line {i}" for i in range(5)] and shown("--tail", "0") == []
    assert shown("--tail", "1", "--grep", "odd") == ["1 line 3"]
    assert shown("--tail", "1", "--attempt", "0") == ["0 line 4"]
    assert shown("--tail", "1", "-f")[:1] == ["1 line 4"]
    assert len(shown("--all")) == 10
