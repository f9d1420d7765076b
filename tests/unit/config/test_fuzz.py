"""Files and words that a user may hand over, made up by hypothesis: one clear error at the most,
never another exception.

Tar headers: tests/unit/shards/format/test_format.py, tests/unit/shards/format/test_tar_damage.py.
Sweep files are to be added where they are read.
"""

import json
import string

import pytest
import shard_sets as small
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distgan.config import loading
from distgan.core.errors import DistganError
from distgan.data.dataset import Data
from distgan.monitor.journal import read_journal
from distgan.recipes import sagan, timbre, waveform, wgan_flowers
from distgan.runs.folder import RunFolder

SETTINGS = {"max_examples": 60, "deadline": None, "suppress_health_check": list(HealthCheck)}
MODELS = {
    module.__name__.rpartition(".")[2]: module.Settings
    for module in (sagan, timbre, waveform, wgan_flowers)
}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
KEYS = sorted(
    {key for model in MODELS.values() for key in model.model_fields}
    | {"watch.window", "machine.keep", "evaluate.samples"}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def quietly(work):
    """Runs it; an error for the user is fine, and has one message."""
    try:
        return work()
    except DistganError as error:
        assert str(error).strip()
    return None


@pytest.mark.gate
@settings(**SETTINGS)
@given(
    content=st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass"))
    | PLAIN.map(lambda tree: yaml.safe_dump(tree).encode(errors="replace"))
)
def test_run_files(content, folder):
    path = folder / "run.yaml"
    path.write_bytes(content)
    tree = quietly(lambda: loading.read_yaml(path))
    if tree is not None:
        quietly(lambda: loading.validate(MODELS["sagan"], tree))


@settings(**SETTINGS)
@given(
    name=st.sampled_from(sorted(MODELS)),
    tree=st.dictionaries(
        st.sampled_from([key for key in KEYS if "." not in key]), PLAIN, max_size=5
    ),
)
def test_settings_of_any_kind(name, tree):
    quietly(lambda: loading.validate(MODELS[name], {"recipe": name, "data": "d"} | tree))


@settings(**SETTINGS)
@given(
    words=st.lists(
        st.builds(
            lambda key, value: f"{key}={value}",
            st.sampled_from(KEYS) | st.text(max_size=10),
            st.text(max_size=15),
        )
        | st.text(alphabet=string.printable, max_size=20),
        max_size=4,
    )
)
def test_overrides(words):
    quietly(lambda: loading.override({}, words))
    quietly(
        lambda: loading.validate(MODELS["waveform"], {"recipe": "waveform", "data": "d"}, words)
    )


LINES = st.lists(
    st.binary(max_size=60)
    | PLAIN.map(lambda tree: json.dumps(tree).encode())
    | st.builds(
        lambda row, more: json.dumps(row | more).encode(),
        st.fixed_dictionaries(
            {"step": st.integers(0, 9) | st.floats(), "epoch": st.floats() | st.text(max_size=3)}
        ),
        st.dictionaries(st.text(max_size=5), PLAIN, max_size=2),
    ),
    max_size=6,
)


@settings(**SETTINGS)
@given(lines=LINES)
def test_journals(lines, folder):
    path = folder / "journal.jsonl"
    path.write_bytes(b"\n".join(lines))
    quietly(lambda: read_journal(path))
    held = RunFolder.__new__(RunFolder)  # what a run does with the journal that it finds
    held.path = folder
    quietly(lambda: held.rewind(4))
    quietly(lambda: read_journal(path))


@settings(**SETTINGS)
@given(
    content=st.binary(max_size=100)
    | PLAIN.map(lambda tree: json.dumps(tree).encode())
    | st.dictionaries(
        st.sampled_from(["version", "sample", "samples", "fingerprint", "source", "left_out"]),
        PLAIN,
        max_size=6,
    ).map(lambda tree: json.dumps(tree).encode())
)
def test_descriptions_of_data_sets(content, folder):
    (folder / "set").mkdir(exist_ok=True)
    (folder / "set/dataset.json").write_bytes(content)
    quietly(lambda: Data(str(folder / "set")))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small.images(tmp_path_factory.mktemp("good") / "set", 4)


@settings(**SETTINGS)
@given(
    content=st.binary(max_size=100) | PLAIN.map(lambda tree: json.dumps(tree).encode()),
    at=st.floats(0, 1),
    key=st.none() | st.text(max_size=9),
    value=PLAIN,
)
def test_manifests_and_indexes(content, at, key, value, data):
    """Another content, a stretch of it replaced, or one entry of it."""
    for path in sorted((data / "train").iterdir()):
        kept = path.read_bytes()
        start = int(at * len(kept))
        made = [content, kept[:start] + content + kept[start + len(content) :]]
        if path.suffix == ".json":
            tree = json.loads(kept)
            made.append(
                json.dumps(tree | {key or sorted(tree)[int(at * (len(tree) - 1))]: value}).encode()
            )
        for one in made:
            path.write_bytes(one)
            found = quietly(lambda: Data(str(data)))
            if found is not None:
                quietly(lambda found=found: found.decode(found.train, range(len(found.train))))
        path.write_bytes(kept)
    assert len(Data(str(data)).train) == 4
