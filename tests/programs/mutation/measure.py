"""What the tests hold: python tests/programs/mutation/measure.py FOLDER [--mutants 150]
[--seed 20261129] [--tier test|gate] [--workers 2] [--limit 150].

Mutants are drawn at random from distgan, launchers and shards (`mutants.py`). A probe run of the
tier, in a copy of the checkout, finds the tests that execute each; then each mutant is put into a
copy of its own, and those tests run, cheapest first, until one fails. `--tier gate` takes up what
`--tier test` left. FOLDER keeps everything: the same line goes on where it was stopped. The last
lines are the table: killed, survived, executed by no test. Run it on an idle machine: a test that
fails for want of time counts as a kill.

A mutant outside functions, as a default, is executed while modules are imported, by whichever test
comes first. It is held against the tests that execute any function of its file. A test that hits a
mutant while a fixture of its file is made stands for the whole file.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from mutants import Mutant, apply, mutants, probed

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("distgan", "launchers", "shards")
TIERS = {"test": "not gate and not nightly", "gate": "gate and not nightly"}
PLACES = ("tests/unit", "tests/process")
FIRST = 1_000_000  # numbers of probes at the first function of a file begin here
PROBE = """
import os
seen = set()
def hit(number):
    key = (number, os.environ.get("PYTEST_CURRENT_TEST", ""))
    if key not in seen:
        seen.add(key)
        log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(log, ("%d\\t%s\\n" % key).encode())
        os.close(log)
"""


@dataclasses.dataclass(frozen=True)
class Drawn:
    number: int
    file: str
    mutant: Mutant


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mutants", type=int, default=150)
    parser.add_argument("--seed", type=int, default=20261129)
    parser.add_argument("--tier", choices=TIERS, default="test")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=150, help="seconds for a mutant's tests")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    drawn = draw(options.mutants, options.seed)
    done = Results(options.folder / "results.jsonl")
    left = [one for one in drawn if done.state(one, "test") != "killed"]
    if options.tier == "test":
        left = drawn
    elif missing := [one for one in drawn if not done.state(one, "test")]:
        print(f"{len(missing)} mutants have no result of --tier test yet: run that first")
        return 2
    hits, seconds = probe(options.folder, options.tier, left)
    todo = [one for one in left if not done.state(one, options.tier)]
    with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
        trees = [copied(options.folder / f"tree{place}") for place in range(options.workers)]
        for state, one in pool.map(
            lambda one: (tried(one, hits, seconds, trees, options.limit), one), todo
        ):
            done.add(one, options.tier, *state)
            print(f"{one.number:3} {state[0]:9} {one.file}:{one.mutant.line} {one.mutant.kind}")
    table(drawn, done, options.tier)
    return 0


def draw(count: int, seed: int) -> list[Drawn]:
    """Draw mutants of all files that git has, each as likely as any other."""
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    every = [
        (file, mutant)
        for file in sorted(listed)
        if file.endswith(".py")
        for mutant in mutants((ROOT / file).read_text())
    ]
    chosen = random.Random(seed).sample(every, count)
    return [Drawn(number, file, mutant) for number, (file, mutant) in enumerate(chosen)]


def probe(
    folder: Path, tier: str, drawn: list[Drawn]
) -> tuple[dict[int, list[str]], dict[str, float]]:
    """Return the tests that execute each mutant, and what each test of the tier took."""
    log, junit = folder.resolve() / f"{tier}.tsv", folder.resolve() / f"{tier}.xml"
    if not junit.exists():
        log.unlink(missing_ok=True)
        tree = copied(folder / "probes")
        (tree / "mutation_probe.py").write_text(PROBE.format(log=str(log)))
        by_file = collections.defaultdict(list)
        for one in drawn:
            by_file[one.file].append(one)
        for file, ones in by_file.items():
            probes = {one.number: one.mutant for one in ones if one.mutant.function}
            if len(probes) < len(ones):
                probes |= {
                    FIRST + ones[0].number * 1000 + place: mutant
                    for place, mutant in enumerate(_functions(tree / file))
                }
            (tree / file).write_text(probed((tree / file).read_text(), probes))
        pytest(tree, [*PLACES, "-m", TIERS[tier], "-n", "2", f"--junitxml={junit}"], None)
    seconds = {
        f"{case.get('file') or _file(case)}::{case.get('name')}": float(case.get("time") or 0)
        for case in ElementTree.parse(junit).iter("testcase")
    }
    tests = collections.defaultdict(set)
    for line in log.read_text().splitlines():
        number, _, test = line.partition("\t")
        name, _, phase = test.rpartition(" (")
        if name:
            tests[int(number)].add(name if phase == "call)" else name.split("::")[0])
    for one in drawn:
        if not one.mutant.function:
            of_file = range(FIRST + one.number * 1000, FIRST + (one.number + 1) * 1000)
            first = next(other.number for other in drawn if other.file == one.file)
            of_file = range(FIRST + first * 1000, FIRST + (first + 1) * 1000)
            tests[one.number] = set().union(*(tests[number] for number in of_file))
    return {one.number: sorted(tests[one.number]) for one in drawn}, seconds


def _functions(path: Path) -> list[Mutant]:
    """Return one mutant of each function of a file, to probe the function with."""
    return list({one.function: one for one in mutants(path.read_text()) if one.function}.values())


def _file(case: ElementTree.Element) -> str:
    """Return the file of a test whose class name is that file with dots."""
    return (case.get("classname") or "").replace(".", "/") + ".py"


def copied(tree: Path) -> Path:
    """Copy what git has of the checkout, where no copy is yet, as a repository of its own."""
    if not tree.exists():
        subprocess.run(["git", "clone", "--quiet", ROOT, tree], check=True)
    return tree.resolve()


def pytest(tree: Path, words: list[str], limit: float | None) -> int | None:
    """Run pytest in a copy; None: it took too long."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "--dist", "worksteal"]
    process = subprocess.Popen(
        [*command, *words] if "-n" in words else [*command[:-2], *words],
        cwd=tree,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        return None


def tried(
    one: Drawn,
    hits: dict[int, list[str]],
    seconds: dict[str, float],
    trees: list[Path],
    limit: float,
) -> tuple[str, str]:
    """Return (killed, survived, unseen or unclear; by what, or how many tests ran)."""
    if not (tests := hits[one.number]):
        return "unseen", ""
    per_file = collections.defaultdict(float)
    for test, took in seconds.items():
        per_file[test.split("::")[0]] += took
    ordered = sorted(tests, key=lambda test: seconds.get(test, per_file.get(test, 60.0)))
    tree = trees.pop()
    try:
        path = tree / one.file
        before = path.read_text()
        path.write_text(apply(before, one.mutant))
        words = tree / "mutation_tests.txt"
        words.write_text("\n".join(ordered))
        code = pytest(tree, ["-x", "-p", "no:cacheprovider", f"@{words}"], limit)
        path.write_text(before)
        if code == 4 and pytest(tree, ["--collect-only", f"@{words}"], None) == 4:
            return "unclear", "pytest does not know one of the tests"
    finally:
        trees.append(tree)
    if code is None:
        return "killed", "time"
    return ("survived" if code in (0, 5) else "killed"), f"{len(ordered)} tests, exit {code}"


class Results:
    """What became of each mutant, a line each."""

    def __init__(self, path: Path):
        self._path = path
        self._states: dict[tuple[int, str], str] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            row = json.loads(line)
            self._states[row["number"], row["tier"]] = row["state"]

    def state(self, one: Drawn, tier: str) -> str | None:
        return self._states.get((one.number, tier))

    def add(self, one: Drawn, tier: str, state: str, how: str) -> None:
        self._states[one.number, tier] = state
        row = {"number": one.number, "tier": tier, "state": state, "how": how, "file": one.file}
        row |= dataclasses.asdict(one.mutant)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def table(drawn: list[Drawn], done: Results, tier: str) -> None:
    tiers = ("test",) if tier == "test" else ("test", "gate")
    killed = [one for one in drawn if any(done.state(one, name) == "killed" for name in tiers)]
    left = [one for one in drawn if one not in killed]
    unseen = [one for one in left if all(done.state(one, name) == "unseen" for name in tiers)]
    executed = len(drawn) - len(unseen)
    print(
        f"killed {len(killed)} of {executed} executed ({100 * len(killed) / executed:.0f} %),"
        f" executed by no test {len(unseen)}"
    )
    for one in left:
        state = "unseen  " if one in unseen else "survived"
        mutant = one.mutant
        print(
            f"{state} {one.number:3} {one.file}:{mutant.line} {mutant.function} [{mutant.kind}]"
            f"\n    {mutant.old}\n    {mutant.new}"
        )


if __name__ == "__main__":
    shutil.which("git") or sys.exit("git is not on this machine")
    sys.exit(main())
