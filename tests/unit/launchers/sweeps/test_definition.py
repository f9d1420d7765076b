"""What a sweep's words or file ask for: members, chains, one message for a wrong file."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_options import options_of

from distgan.config import loading
from distgan.core.errors import ConfigError, DistganError
from distgan.launchers.slurm import profiles
from distgan.launchers.sweeps import definition, search


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["ngf=64,96"], [{"ngf": 64}, {"ngf": 96}]),
        (
            ["ngf=64,96", "seed=range(2)"],
            [
                {"ngf": 64, "seed": 0},
                {"ngf": 64, "seed": 1},
                {"ngf": 96, "seed": 0},
                {"ngf": 96, "seed": 1},
            ],
        ),
        (["seed=range(2, 6, 2)"], [{"seed": 2}, {"seed": 4}]),
        (["evaluate.schedule=[[null,10]]", "batch=32"], [{}]),
        (["loss=hinge,lsgan"], [{"loss": "hinge"}, {"loss": "lsgan"}]),
        (["betas=[0.0,0.9],[0.5,0.999]"], [{"betas": [0.0, 0.9]}, {"betas": [0.5, 0.999]}]),
        (["name='a,b'"], [{}]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_words_make_members(words, values):
    assert definition.read(["sagan", *words]).values == values


def test_a_file_makes_members(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "recipe: sagan\nsettings: {data: d, epochs: 3}\ngrid: {ngf: [4, 8], seed: range(2)}\ncases:"
        " [{g_lr: 1e-4}, {g_lr: 2e-4, d_lr: 1e-3}]\nslurm: {profile: dev}\n"
    )
    asked = definition.read([str(path), "epochs=5", "seed=7"])
    assert (
        len(asked.values) == 4
        and asked.values[-1] == {"g_lr": 2e-4, "d_lr": 1e-3, "ngf": 8}
        and asked.slurm == {"profile": "dev"}
    )
    assert asked.words == ['data="d"', "epochs=3", "epochs=5", "seed=7"]
    path.write_text(
        "recipe: sagan\nrandom: {members: 3, seed: 1, g_lr: 'loguniform(1e-5, 1e-3)', ngf: [4,"
        " 8]}\n"
    )
    first = definition.read([str(path)]).values
    path.write_text(path.read_text().replace("members: 3", "members: 5"))
    assert definition.read([str(path)]).values[:3] == first and all(
        1e-5 <= one["g_lr"] <= 1e-3 and one["ngf"] in (4, 8) for one in first
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipe: sagan\ngird: {a: [1]}\ngrid: {}", "gird: unknown key"),
        ("grid: {ngf: [1, 2]}", "recipe: found null"),
        ("recipe: sagan\ngrid: {ngf: 3}", "ngf: found 3, allowed is a list"),
        ("recipe: sagan\ngrid: {ngf: []}", "ngf: found []"),
        ("recipe: sagan\ngrid: {ngf: [4, 4]}", "ngf: 4 is listed twice"),
        ("recipe: sagan\ngrid: {seed: range(x)}", "range(STOP)"),
        ('recipe: sagan\ngrid: {seed: "range(0, 9, 0)"}', "range(STOP)"),
        ("recipe: sagan\ngrid: {seed: range(999999999)}", "allowed are 100,000"),
        ("recipe: sagan\ngrid: {a: range(1000), b: range(1000)}", "1,000,000 members"),
        ("recipe: sagan\nrandom: {members: 0, g_lr: [1]}", "members=0"),
        ("recipe: sagan\nrandom: {members: 2, g_lr: 'loguniform(0, 1)'}", "LOW above 0"),
        ("recipe: sagan\nrandom: {members: 2, g_lr: 'uniform(2, 1)'}", "uniform(LOW, HIGH)"),
        ("recipe: sagan\ngrid: {g_lr: 'uniform(1, 2)'}", "under `random`"),
        ("recipe: sagan\ngrid: {ngf: [1, 2]}\nchain: ndf", 'chain: found "ndf"'),
        ("recipe: sagan\ncases: 3\n", "cases: found 3"),
        (
            "recipe: sagan\nsearch: {trials: 3, space: {a: [1, 2]}}\ngrid: {b: [1, 2]}",
            "search: cannot be combined",
        ),
        ("recipe: sagan\ngrid: {recipe: [sagan, ./gan.py]}", '"./gan.py" is no recipe'),
        ("recipe: sagan\nrandom: {members: 2, recipe: [/x.py]}", '"/x.py" is no recipe'),
        ("recipe: sagan\ngrid: [1, 2]", "grid: found [1, 2], allowed is a mapping"),
    ],
)
def test_a_wrong_file_is_one_message(text, said, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="^(?!Traceback)") as error:
        definition.read([str(path)])
    assert said in str(error.value)


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=20)
        | st.sampled_from(["range(3)", "uniform(1,2)", "sagan", "choice(a,b)"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from([*definition.KEYS, "members", "seed", "ngf", "space", "trials"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_no_sweep_file_gives_a_traceback(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(json.dumps(tree))
    try:
        asked = definition.read([str(path)])
        if asked.chain:
            definition.chains(asked.values, asked.chain)
        if asked.search:
            loading.validate(search.Search, asked.search)
        profiles.chosen(options_of([]), asked.slurm)
    except DistganError:
        pass


def test_chains_follow_the_key():
    values = [
        {"ngf": 96, "seed": 0},
        {"ngf": 64, "seed": 0},
        {"ngf": 64, "seed": 1},
        {"ngf": 96, "seed": 1},
    ]
    assert definition.chains(values, "ngf") == [[1, 0], [2, 3]]
