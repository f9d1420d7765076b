"""Every command line of README and docs/, parsed to where its work would begin.

Lines of fenced blocks, command lines in their comments, and code in running text that begins with a
program. The verbs' own grammars read the lines of distgan, the launchers' own parsers those of
accelerate, torchrun and deepspeed; settings are planned with small data of the same kind.
"""

import ast
import contextlib
import importlib
import importlib.util
import io
import re
import shlex
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from shard_sets import damaged, shard

from distgan import cli
from distgan.config import batch_layout
from distgan.core.arguments import HELP
from distgan.core.errors import DistganError

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "tests/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
PROGRAMS = (
    *("distgan", "python", "make", "pip", "accelerate", "torchrun", "deepspeed", "sbatch"),
    *("slurm/dev-cluster", "source", "docker"),
)
OURS = re.compile(r"(configs|distgan|tests|bench|examples|slurm|docs)/[\w./-]+")
FENCES = ("", "sh", "bash", "console")  # languages of blocks that may hold commands
# A data set's name in the pages -> the fixture with data of that kind.
SMALL = {
    **{name: "shapes" for name in ("shapes", "shapes20k", "p32")},
    **{name: "particles" for name in ("particles", "p64", "photos")},
    **{"flowers": "flowers", "gaussians": "gaussians", "pulses": "pulses"},
    **{"timbre": "recordings", "speech48": "recordings", "pairs": "negatives"},
    "shapes128": "large",
}
OWN = {"my_gan.py": "image", "my_rows.py": "vector", "my_pix2pix.py": "image_pair"}
PLANNED = ("train", "run", "debug", "submit", "capacity", "doctor")


def test_the_pages_are_read():
    lines = [line for page in PAGES for _, line, _ in commands(page.read_text())]
    assert len(lines) > 200 and sum(line.startswith("distgan train") for line in lines) > 15


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```\na b\n```", []),
        ("```\n$ make test\nresult\n```", [(2, "make test", True)]),
        (
            "```\ndistgan train x \\\n  y=1   # or: distgan check OUT; slower\n```",
            [(2, "distgan train x y=1", True), (3, "distgan check OUT", False)],
        ),
        ("```python\nmake = 1\n```\n`make demo`, `a`", [(4, "make demo", False)]),
        ("`A=1 python x.py`", [(1, "python x.py", False)]),
    ],
)
def test_command_lines_of_a_text(text, expected):
    assert list(commands(text)) == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("torchrun --nproc-per-node 8 -m distgan evaluate RUN --n 50000", "ambiguous option"),
        ("accelerate launch --nodes 2 distgan/train.py sagan data=data/particles", "--nodes"),
        ("distgan evaluate RUN --m 5", "no such option"),
        ("distgan train sagan data=data/particles epoch=3", "epoch"),
        ("distgan run --processes 3 sagan data=data/particles", "batch"),
        ("distgan train sagan data=data/pulses", "image"),
        ("distgan polish RUN", "no such verb"),
        ("python tests/programs/kaos.py", "no such file"),
        ("python tests/programs/chaos.py --murders 100", "--murders"),
        ("make coffee", "no such target"),
        ("pip install 'distgan[coffee]'", "no such extra"),
        ("sbatch --array=0-3 --wrap 'distgan check'", "missing"),
        ("distgan shard waveforms data/x", "waveforms"),
        ("distgan submit sagan data=data/nowhere --profile gpu", "no shards in data/nowhere"),
    ],
)
@pytest.mark.gate
def test_a_wrong_line_is_found(line, said, reader):
    assert said in str(reader.fault(line, fenced=True))


@pytest.mark.gate
def test_an_option_that_the_text_speaks_of_is_found(reader):
    assert "polish" in reader.fault("distgan shard images --polish yes", fenced=False)


@pytest.mark.gate
def test_every_command_line_of_the_pages(reader):
    wrong = []
    for page in PAGES:
        for number, line, fenced in commands(page.read_text()):
            if fault := reader.fault(line, fenced):
                wrong.append(f"{page.relative_to(ROOT)}:{number}: {line}\n    {fault}")
    assert not wrong, "\n".join(wrong)


def commands(text):
    """Yield (line number, command line, whether it stands in a fenced block) of a page."""
    fence, begun = None, ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip().startswith("```"):
            fence, begun = (None if fence is not None else line.strip()[3:]), ""
        elif fence is None:
            for code in re.findall(r"`([^`]+)`", line):
                yield from ((number, one, False) for one in _split(code))
        elif fence in FENCES:
            code, _, comment = line.partition(" #")
            code = begun + code.strip().removeprefix("$ ")
            start = number - begun.count("\n")
            begun = f"{code[:-1].strip()} \n" if code.endswith("\\") else ""
            if not begun:
                yield from ((start, one, True) for one in _split(code.replace("\n", "")))
            for said in re.findall(r"(?:^|[:;,] )((?:distgan|pip) [^;:,]*[^;:, ])", comment):
                if said.split()[0] in PROGRAMS:
                    yield number, said.rstrip("."), False


def _split(code):
    for part in re.split(r" && | \| ", code.strip()):
        part = re.sub(r"^([A-Z_]+=\S+ )+", "", part.strip())
        if part.split(" ")[0] in PROGRAMS:
            yield part


def _filled(verb, words):
    """Put words in the place of those that a line leaves out."""
    recipe = []
    if "--report" in words:
        recipe = ["NAME"]
    elif verb == "capacity" or any(word.endswith(".py") for word in words):
        recipe = ["data=data/particles"]
    elif verb in (*PLANNED, "sweep"):
        recipe = ["sagan", "data=data/particles"]
    at = words.index("…") if "…" in words else 0
    filled = [*words[:at], *(recipe if "…" in words else []), *words[at:]]
    return [
        word.replace("=…", "=x") if word != "data=…" else word for word in filled if word != "…"
    ]


@pytest.fixture(scope="module")
def large(shared):
    """Sixty labelled images of 128x128 in colour."""
    options = ("--n", 60, "--workers", 1, "--size", 128)
    return shared("large", lambda to: shard("shapes", to, *options))


@pytest.fixture(scope="module")
def recordings(shared):
    """Pairs of clips of 1 s at 16 kHz."""
    return shared("long-recordings", lambda to: damaged(to, 6, held_out=2, frames=16000))


@pytest.fixture(scope="module")
def reader(request, tmp_path_factory):
    """Read lines in a folder that has a recipe file of each kind."""
    home = tmp_path_factory.mktemp("pages")
    with contextlib.chdir(home):
        yield Reader(request.getfixturevalue)


class Reader:
    def __init__(self, sets):
        self.sets = sets
        self.written = set()  # recipe files as a block has just made them
        self._write(OWN)
        self.makefile = (ROOT / "Makefile").read_text()
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        self.extras = set(project["optional-dependencies"])

    def _write(self, names):
        from distgan.commands import new

        for name in names:
            Path(name).unlink(missing_ok=True)
            with contextlib.redirect_stdout(io.StringIO()):
                assert new.main([name, "--kind", OWN[name]]) == 0

    def fault(self, line, fenced):
        """Return what is wrong with a command line, None for a good one."""
        try:
            program, *words = shlex.split(line)
            if not fenced:
                self._write(self.written)
                self.written.clear()
            if not words:
                return None  # only the program's name
            for word in words:
                if OURS.fullmatch(word) and not (ROOT / word).exists():
                    return f"no such file: {word}"
            read = getattr(self, program.rpartition("/")[2].replace("-", "_"))
            said = io.StringIO()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                try:
                    return read(words, fenced)
                except SystemExit as left:
                    return said.getvalue()[-300:] if left.code else None
        except (DistganError, ValueError) as error:
            return str(error)

    def distgan(self, words, fenced):
        verb, *rest = words
        if verb == "--help" or verb == "…":
            return None
        if verb not in cli.VERBS:
            return f"no such verb: {verb}"
        if not rest and not fenced:
            return None  # the text speaks of the verb
        rest = _filled(verb, rest)
        command = cli.command_of(verb)
        if verb == "shard":
            from distgan.shards.build.command import command_of

            source = "particles" if rest[0] == "SOURCE" else rest[0]
            command = command_of(source)
            rest = rest[1:] or ["OUT"]
            rest = [re.sub(r"^(K/N|slurm)$", "0/2", word) for word in rest]
            if not fenced:  # the text may speak of a source and an option of it
                known = {option.name for option in (*command.options, HELP)}
                given = {word[2:].partition("=")[0] for word in rest if word.startswith("--")}
                return f"no such option: {given - known}" if given - known else None
        if verb == "evaluate" and "--metrics" in rest:
            from distgan.commands import _evaluate_audio, _evaluate_images, evaluate

            kind = _evaluate_audio if "clean" in rest else _evaluate_images
            command = replace(command, options=(*kind.OPTIONS, *evaluate.SHARED))
        arguments = command.parse(self._on_small_data(rest))
        if verb == "new":
            Path(arguments.words[0]).unlink(missing_ok=True)
            self.written.add(arguments.words[0])
            return cli.guarded(importlib.import_module("distgan.commands.new").main, rest) or None
        if verb in PLANNED and arguments.words:
            self._plan(verb, arguments)
        elif verb == "sweep":
            self._sweep(arguments)
        return None

    def _plan(self, verb, arguments):
        """Raise what the settings, the data and the number of processes raise before a start."""
        import distgan.train as train
        from distgan.data.own_dataset import open_data
        from distgan.distributed.environment import resolve_engine

        words = ["capacity", *arguments.words] if verb == "capacity" else arguments.words
        _, run, _ = train.plan([word for word in words if not word.startswith("grow=")])
        processes = getattr(arguments, "processes", None) or 1
        if processes > 1 or run.machine.accumulation > 1:
            batch_layout.fit(
                run.batch, processes, run.machine.accumulation, run.group, run.group_of
            )
        resolve_engine(run.machine, run.precision)
        open_data(run.data).require(run)

    def _sweep(self, arguments):
        from distgan.launchers.sweeps import definition

        if "=" in " ".join(arguments.words):
            definition.read(arguments.words)

    def _on_small_data(self, words):
        def small(match):
            name = match[1].rpartition("/")[2].partition(".py:")[0]
            name = {"…": "particles", "my_data": "particles", "data": "flowers"}.get(name, name)
            return f"data={self.sets(SMALL[name])}" if name in SMALL else match[0]

        return [re.sub(r"^data=(.+)$", small, word) for word in words]

    def _trainer(self, words, fenced):
        """The program that a launcher starts, and its words."""
        if not words or words[0] in ("…", "script.py"):
            return None
        if words[0] in ("distgan/train.py", "distgan.train"):
            return self.distgan(["train", *words[1:]], fenced)
        if words[0] == "distgan":
            return self.distgan(words[1:], fenced)
        return f"no such program: {words[0]}"

    def accelerate(self, words, fenced):
        from accelerate.commands.launch import launch_command_parser

        if words[0] != "launch" or len(words) == 1 or words[1] == "…":
            return None if words[0] == "launch" else f"no such command: {words[0]}"
        options = launch_command_parser().parse_args(self._rooted(words[1:]))
        if options.config_file:
            yaml.safe_load(Path(options.config_file).read_text())
        return self._trainer(self._named(options), fenced)

    def torchrun(self, words, fenced):
        from torch.distributed.run import get_args_parser

        if words == ["…"] or words[0].startswith("--") and len(words) == 2:
            return None
        return self._trainer(self._named(get_args_parser().parse_args(words)), fenced)

    def _named(self, options):
        return [options.training_script, *options.training_script_args]

    def _rooted(self, words):
        return [str(ROOT / word) if word.endswith(".yaml") else word for word in words]

    def deepspeed(self, words, fenced):
        pytest.importorskip("deepspeed")
        from deepspeed.launcher.runner import parse_args

        options = parse_args(words)
        words = [word.replace("=configs/", f"={ROOT}/configs/") for word in options.user_args]
        words.append("machine.engine=deepspeed")  # which the launcher says by its environment
        return self._trainer([options.user_script, *words], fenced)

    def python(self, words, fenced):
        if words[0] == "-c":
            ast.parse(words[1])
            return None
        if words[0] == "-m":
            return self._module(words[1], words[2:], fenced)
        if words[0] == "distgan/train.py":
            return self._trainer(words, fenced)
        if words[0] == "app.py":  # of another program, which a table compares with
            return None
        return self._options((ROOT / words[0]).read_text(), words[1:])

    def _module(self, name, words, fenced):
        if name in ("distgan", "distgan.train"):
            return self._trainer([name, *words], fenced) if words else None
        if name == "pytest":
            return None  # its files exist
        if name == "bench":
            from bench.__main__ import NAMES

            unknown = [word for word in words if not word.startswith("-") and word not in NAMES]
            return f"no such benchmark: {unknown}" if unknown else None
        spec = importlib.util.find_spec(name)
        return self._options(Path(spec.origin).read_text(), words) if spec else f"no module {name}"

    def _options(self, source, words):
        unknown = [word for word in words if word.startswith("--") and f'"{word}"' not in source]
        return f"no such option: {unknown}" if unknown else None

    def make(self, words, fenced):
        for word in words:
            if not re.search(rf"^[\w -]*\b{re.escape(word)}\b[\w -]*:", self.makefile, re.M):
                return f"no such target: {word}"
        return None

    def pip(self, words, fenced):
        for extra in re.findall(r"distgan\[([^]]+)\]", " ".join(words)):
            if not set(extra.split(",")) <= self.extras:
                return f"no such extra: {extra}"
        return None if words[0] == "install" else f"no such command: {words[0]}"

    def sbatch(self, words, fenced):
        if "--wrap" in words:
            return self.fault(words[words.index("--wrap") + 1], True)
        return None

    def dev_cluster(self, words, fenced):
        return None if (ROOT / "slurm/dev-cluster").is_file() else "slurm/dev-cluster: no such file"

    def source(self, words, fenced):
        return None

    docker = source
