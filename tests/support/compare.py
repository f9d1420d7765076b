"""The equivalence matrix: systems, ways to start them, and how far two runs lie apart.
tests/nightly/test_matrix.py runs it, docs/engines.md shows it.

A new system is one entry of SYSTEMS. Every run takes 20 steps of the same global batch, started by
a command line as users type it.
"""

import dataclasses
import json
import re
from pathlib import Path

import torch
from processes import ROOT, final, journal, line, run

STEPS = 20
BATCH, GROUP = (
    12,
    3,
)  # 4 micro-batches and 2 x 2 hold whole batch-norm groups; those of 3 processes span ranks
TRAIN = {
    "particles": 54,
    "pulses": 54,
    "recordings": 54,
    "shapes": 54,
    "negatives": 54,
    "gaussians": 54,
}  # training samples of these fixtures
TOLERANCE = 2e-5  # float32: the promise
ROUNDING = 1e-9  # float64: any fault of sharing, seeding or averaging lies above, rounding below
DOCS = ROOT / "docs" / "engines.md"
# Nothing but training between the first step and the last.
CALM = ("validate_every=1000", "sample_every=1000", "machine.checkpoint_every=1000")
QUIET = ("evaluate.samples=8", "evaluate.schedule=[[null, 1000]]", *CALM)


@dataclasses.dataclass(frozen=True)
class System:
    name: str
    recipe: str
    settings: tuple[str, ...]
    updates: int = 1  # of D in a step, each on a batch of its own
    networks: tuple[str, ...] = ("G.net", "G.ema", "D.net")
    grouped: bool = True  # has batch norm
    data: str = "particles"  # the fixture with its data set

    def words(self, steps: int = STEPS) -> list[str]:
        """Recipe and settings of a run of `steps` steps."""
        images = self.data in ("particles", "shapes")
        usual = QUIET if images or self.data == "gaussians" else CALM  # pairs have no Fréchet score
        return [
            self.recipe,
            f"epochs={steps * BATCH * self.updates / TRAIN[self.data]:.9f}",
            f"batch={BATCH}",
            *([f"bn_group={GROUP}"] if self.grouped and images else []),
            *usual,
            *self.settings,
        ]


@dataclasses.dataclass(frozen=True)
class Way:
    launcher: str = "python"
    processes: int = 1
    accumulation: int = 1
    zero: int | None = None  # the stage; None: DDP, or one process

    @property
    def name(self) -> str:
        how = "1 process" if self.processes == 1 else f"{self.launcher}, {self.processes} processes"
        return (
            how
            + ("" if self.zero is None else f", DeepSpeed ZeRO {self.zero}")
            + (f", accumulation {self.accumulation}" if self.accumulation > 1 else "")
        )

    @property
    def engine(self) -> str:
        """As a run's record of an attempt names it.

        A run that took another one would compare DDP with DDP.
        """
        return (
            "one process"
            if self.processes == 1
            else "DDP"
            if self.zero is None
            else f"DeepSpeed ZeRO {self.zero}"
        )

    def words(self) -> list[str]:
        engine = (
            []
            if self.zero is None
            else ["machine.engine=deepspeed", f"machine.zero_stage={self.zero}"]
        )
        return [f"machine.accumulation={self.accumulation}", *engine]

    def train(
        self, system: System, data: Path, folder: Path, *more: str, steps: int = STEPS
    ) -> Path:
        """Train `system` in this way for `steps` steps; the run folder."""
        run(
            line(self.launcher, self.processes),
            *system.words(steps),
            f"data={data}",
            f"machine.folder={folder}",
            *self.words(),
            *more,
            cwd=folder.parent,
        )
        assert sorted(journal(folder)) == list(
            range(1, steps + 1)
        )  # of a run that was continued, too
        assert attempts(folder)[-1] == (self.processes, self.accumulation, self.engine)
        return folder


# Seeds by tests/programs/find_seeds.py: with those no activation comes near the kink of a ReLU,
# where float32's rounding would change gradients by jumps. r3gan needs none: it has fifty times the
# activations, so that some cross in most seeds, and each is so small a part of a gradient that 3e-7
# is all one
# sees.
ADA = ("ada=true", "ada_kimg=0.05", "ada_every=1")
SYSTEMS = (
    System("sagan", "sagan", ("ngf=2", "ndf=2", "latent=8", "seed=3")),
    System(
        "wgan, clip",
        "wgan_flowers",
        ("ngf=2", "ndf=2", "latent=8", "n_critic=2", "ema=0.99", "seed=3"),
        updates=2,
    ),
    System(
        "wgan, gradient penalty",
        "wgan_flowers",
        ("ngf=2", "ndf=2", "latent=8", "n_critic=2", "ema=0.99", "penalty=10", "seed=5"),
        updates=2,
    ),
    System(
        "r3gan",
        "r3gan",
        ("ngf=2", "ndf=2", "latent=8", "blocks=1", "penalty_every=2", "ema=0.99", "seed=0"),
        grouped=False,
    ),
    System(
        "sagan, classes",
        "sagan",
        ("conditional=true", "label=shape", "ngf=2", "ndf=2", "latent=8", "seed=3", *ADA),
        data="shapes",
    ),
    System(
        "r3gan, classes",
        "r3gan",
        (
            "conditional=true",
            "label=colour",
            "ngf=2",
            "ndf=2",
            "latent=8",
            "blocks=1",
            "ema=0.99",
            "seed=0",
            *ADA,
        ),
        grouped=False,
        data="shapes",
    ),
    System(
        "waveform",
        "waveform",
        (
            "base_filters=2",
            "num_layers=2",
            "base_filters_d=2",
            "num_layers_d=2",
            "ema=0.99",
            "seed=6",
        ),
        data="pulses",
    ),
    System(
        "timbre",
        "timbre",
        (
            "g_width=4",
            "g_fft=64",
            "g_hop=16",
            "d_width=2",
            "stft_resolutions=[[64, 16, 64], [32, 8, 24]]",
            "segment_length=256",
            "gan_start_epoch=0",
            "g_lr=1e-4",
        ),
        data="recordings",
    ),
)
# What `distgan new` writes, unchanged: no seed was searched for, as nothing in it has a kink.
TEMPLATES = tuple(
    System(
        f"{kind} template",
        str(ROOT / "distgan" / "recipes" / "templates" / f"{kind}.py"),
        ("label=shape",) if data == "shapes" else (),
        grouped=False,
        data=data,
    )
    for kind, data in (
        ("image", "particles"),
        ("image_conditional", "shapes"),
        ("pair", "pulses"),
        ("image_pair", "negatives"),
        ("vector", "gaussians"),
        ("vector_conditional", "gaussians"),
    )
)
# Fine-tuned with fixed blocks of D, compared without the run that they are from.
FROZEN = (
    System(
        "sagan, blocks of D fixed",
        "sagan",
        ("fine_tune=a@best", "freeze_d=2", "ngf=2", "ndf=2", "latent=8", "seed=3"),
    ),
    System(
        "wgan, penalty, blocks of D fixed",
        "wgan_flowers",
        (
            "fine_tune=a@best",
            "freeze_d=1",
            "ngf=2",
            "ndf=2",
            "latent=8",
            "n_critic=2",
            "penalty=10",
            "seed=5",
        ),
        updates=2,
    ),
)
REFERENCE = Way()
PLAIN = (
    Way(accumulation=2),
    Way(accumulation=4),
    Way("accelerate", 2),
    Way("torchrun", 2),
    Way("torchrun", 2, accumulation=2),
)
ZERO = tuple(Way("torchrun", 2, zero=stage) for stage in (0, 1, 2))
NIGHTLY = (
    Way("torchrun", 3),
    *(Way("torchrun", 3, zero=stage) for stage in (0, 1, 2)),
    Way("torchrun", 2, accumulation=2, zero=2),
)


def attempts(folder: Path) -> list[tuple[int, int, str]]:
    """(processes, accumulation, engine) of each start of a run."""
    found = [
        json.loads((path / "attempt.json").read_text())
        for path in sorted((folder / "attempts").iterdir())
    ]
    return [(one["processes"], one["batch"]["accumulation"], one["engine"]) for one in found]


# ---- how far two runs lie apart
def losses_apart(a: Path, b: Path, first: int = 1) -> float:
    """The largest of |a - b| / max(|a|, mean |a| of the run) over both losses of all steps from
    `first` on.

    The mean is there because a loss may cross zero (a Wasserstein loss does), where no relative
    difference means anything.
    """
    a, b, found = journal(a), journal(b), []
    for name in ("d/loss", "g/loss"):
        usual = sum(abs(row[name]) for row in a.values()) / len(a)
        found += [
            abs(row[name] - b[step][name]) / max(abs(row[name]), usual)
            for step, row in a.items()
            if step >= first
        ]
    return max(found)


def weights_apart(a: Path, b: Path, networks: tuple[str, ...]) -> dict[str, float]:
    """By network (`G.net`, `G.ema`, `D.net`), the largest over its tensors of ||a - b|| / ||a||;
    buffers are tensors of it too.

    Biases, attention's gamma and running means start at zero and may be anything near it after 20
    steps. For those ||a|| is at least what a tensor of their size would have if its elements were
    as large as the network's usual one: sqrt(n / N) times the norm of the N weights of the network.
    """
    a, b = final(a), final(b)
    assert {".".join(name.split(".")[:2]) for name in a} == set(networks)
    return tensors_apart(a, b)


def tensors_apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> dict[str, float]:
    """The same of the tensors of two checkpoints."""
    assert a.keys() == b.keys()
    networks = {".".join(name.split(".")[:2]) for name in a}
    return {
        network: _network_apart({k: v for k, v in a.items() if k.startswith(network + ".")}, b)
        for network in sorted(networks)
    }


def _network_apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    buffers = re.compile(r"\.(running_\w+|u|v)$")
    weights = torch.cat(
        [value.double().flatten() for name, value in a.items() if not buffers.search(name)]
    )
    found = []
    for name, value in a.items():
        size = value.double().norm()
        if re.search(r"\.(bias|gamma|running_mean)$", name):
            size = max(size, weights.norm() * (value.numel() / weights.numel()) ** 0.5)
        found.append(float((value.double() - b[name].double()).norm() / size))
    return max(found)


# ---- the table in the docs
def marks(precision: str) -> tuple[str, str]:
    return f"<!-- matrix {precision} -->", f"<!-- end of matrix {precision} -->"


def render(rows: dict[tuple[str, str], str]) -> str:
    """{(way, system): cell} -> a Markdown table, in the order of this file."""
    ways = [
        way.name for way in (*PLAIN, *ZERO, *NIGHTLY) if any(key[0] == way.name for key in rows)
    ]
    names = [system.name for system in SYSTEMS]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    return "\n".join(
        lines
        + [f"| {way} | {' | '.join(rows.get((way, name), '') for name in names)} |" for way in ways]
    )


def parse(text: str, precision: str) -> dict[tuple[str, str], str]:
    """The cells of the table between the marks of `precision` in the docs."""
    begin, end = marks(precision)
    lines = [
        [cell.strip() for cell in text.split("|")[1:-1]]
        for text in text.partition(begin)[2].partition(end)[0].strip().splitlines()
    ]
    if not lines:
        return {}
    return {
        (row[0], name): cell
        for row in lines[2:]
        for name, cell in zip(lines[0][1:], row[1:], strict=True)
        if cell
    }


def write(precision: str, measured: dict[tuple[str, str], str]) -> None:
    """Put measured cells into the docs; others stay as they are."""
    text = DOCS.read_text()
    begin, end = marks(precision)
    head, rest = text.split(begin)
    DOCS.write_text(
        f"{head}{begin}\n{render(parse(text, precision) | measured)}\n{end}{rest.split(end)[1]}"
    )


def figure(cell: str) -> list[float]:
    """`1.2e-07 · 3.4e-06` -> both numbers."""
    return [float(part) for part in cell.split("·")]
