"""`distgan new`: write the file of a GAN of one's own, which trains as it is. Imports no torch."""

import contextlib
import keyword
import sys
from collections.abc import Iterator
from pathlib import Path

from distgan.config import image_sizes
from distgan.core import console
from distgan.core.arguments import Arguments, Command, one_of, switch
from distgan.core.errors import ConfigError
from distgan.core.files import create, disk_errors, make_folder
from distgan.core.reading import read_json
from distgan.recipes._catalog import FOLDER, recipe_names
from distgan.shards.format.sample_spec import sample_of

PAGE = FOLDER.parent / "your-own-gan.md"  # docs/your-own-gan.md
CONDITIONAL = "_conditional"  # in the name of a template whose networks are given classes
# Of each template: data to begin with, as words of `distgan shard`, and the folder to make.
DATA = {
    "image": ("particles", "data/particles"),
    "image_conditional": ("shapes", "data/shapes"),
    "image_pair": ("image_pairs", "data/pairs", "--input", "before", "--target", "after"),
    "pair": ("waveform", "data/pulses", "--n", "440", "--length", "256", "--noise", "12"),
    "vector": ("gaussians", "data/gaussians"),
    "vector_conditional": ("gaussians", "data/gaussians"),
}
KINDS = [name for name in DATA if not name.endswith(CONDITIONAL)]
# Of pictures, recordings or tables of one's own, where those are built in.
OWN = {
    "image": ("images", "data/photos", "--from", "PHOTOS", "--size", "64"),
    "pair": ("audio", "data/takes", "--from", "TAKES", "--segment", "2"),
    "vector": ("vectors", "data/rows", "--from", "ROWS.csv"),
}
OWN |= {
    "image_conditional": (*OWN["image"], "--labels", "folders"),
    "vector_conditional": (*OWN["vector"], "--labels", "COLUMN"),
}


def _check(arguments: Arguments) -> Iterator[str]:
    if _template(arguments) not in DATA:
        kinds = [name.removesuffix(CONDITIONAL) for name in DATA if name.endswith(CONDITIONAL)]
        yield f"--conditional: not of --kind {arguments.kind}; allowed of {', '.join(kinds)}"
    for word in arguments.words:
        path = Path(word)
        name = path.stem
        if path.suffix != ".py":
            yield f"{word}: a recipe is a Python file; allowed: a name that ends in .py"
        elif not name.isidentifier() or keyword.iskeyword(name):
            yield f"{word}: allowed: a name of letters, digits and _, such as my_gan.py"
        elif name in recipe_names():
            yield f"{word}: {name} is a recipe that exists already; allowed: another name"
        elif name in sys.stdlib_module_names or name == "distgan":
            yield f"{word}: it would hide Python's module {name}; allowed: another name"


COMMAND = Command(
    "new",
    """Write the file of a GAN of your own: two small networks, their losses and settings, with
comments, in at most 80 lines (100 with classes). It trains as it is; change it as you like.""",
    (
        one_of(
            "kind",
            "image: square images from noise; pair: one signal from another; image_pair: one image"
            " from another; vector: vectors, such as rows of a table, from noise",
            *KINDS,
            default="image",
        ),
        switch("conditional", "of image and vector: both networks are given the sample's class"),
    ),
    ("FILE.py", "the file to write; the recipe has its name. Nothing is overwritten"),
    least=1,
    most=1,
    check=_check,
    epilog=f"""examples:
  distgan new my_gan.py
  distgan new repair.py --kind pair
  distgan new my_pix2pix.py --kind image_pair
  distgan new my_rows.py --kind vector
  distgan new my_gan.py --conditional
then, after data are made: distgan train my_gan.py data=FOLDER

{PAGE} explains what a file may hold""",
)


def main(argv: list[str]) -> int:
    """Run the command; return its exit code."""
    arguments = COMMAND.parse(argv)
    path = Path(arguments.words[0]).expanduser()
    template = _template(arguments)
    text = (FOLDER / "templates" / f"{template}.py").read_bytes()
    with disk_errors(path):
        make_folder(path.parent)
        try:
            with create(path) as file:
                file.write(text)
        except FileExistsError:
            raise ConfigError(
                f"{path} exists, and is left as it is; give another name, or delete it first"
            ) from None
    console.say(f"wrote {path}: it trains as it is; {PAGE} explains what it may hold. Next:")
    if made := _made(arguments.kind, arguments.conditional):
        console.say(f"  {console.command('train', path, *made)}")
        return 0
    source, data, *options = DATA[template]
    lines = [console.command("shard", source, data, *options)]
    words = [f"data={data}", *(["label=shape"] if source == "shapes" else [])]
    lines.append(console.command("train", path, *words))
    if own := OWN.get(template):
        lines.insert(0, console.command("shard", *own) + "  # data of your own, or built-in ones:")
        lines[-1] = f"{console.command('train', path, f'data={own[1]}')}  # or {' '.join(words)}"
    console.say("\n".join(f"  {line}" for line in lines))
    return 0


def _template(arguments: Arguments) -> str:
    return f"{arguments.kind}{CONDITIONAL if arguments.conditional else ''}"


def _made(kind: str, conditional: bool) -> list[str]:
    """Return the settings that name a data set below the working directory which the template
    trains on; none without one.
    """
    for path in sorted([*Path().glob("*/dataset.json"), *Path().glob("*/*/dataset.json")]):
        with contextlib.suppress(OSError, ValueError):
            sample = sample_of(about := read_json(path, links=True))
            fits = kind in ("pair", "vector") or sample.get("size") in image_sizes.SIDES
            labels = list(about.get("labels", {})) if conditional else []
            if sample["kind"] != kind or not fits or not about.get("complete"):
                continue
            if labels or not conditional:
                column = [f"label={labels[0]}"] if len(labels) > 1 else []
                return [f"data={path.parent}", *column]
    return []
