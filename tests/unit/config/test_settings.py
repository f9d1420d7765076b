"""The settings of a run: what is read, what is refused and how it is said, what makes two runs
one.
"""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import environment
from pydantic import model_validator

from distgan.config.batch_layout import fit, reference_group
from distgan.config.introspection import describe
from distgan.config.loading import override, validate
from distgan.config.sections import Section
from distgan.core.errors import ConfigError
from distgan.monitor.settings import Watch
from distgan.recipes._catalog import recipe_names, resolve_recipe
from distgan.recipes.sagan import Settings

BASE = {"recipe": "sagan", "data": "somewhere"}


def of(*assignments: str) -> Settings:
    return validate(Settings, BASE, list(assignments))


def fault(*assignments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        of(*assignments)
    return str(caught.value)


# ---- what is read
@pytest.mark.parametrize(
    ("assignments", "tree"),
    [
        (["batch=32"], {"batch": 32}),
        (["g_lr=1e-4"], {"g_lr": 1e-4}),
        (["g_lr=-2E+3"], {"g_lr": -2000.0}),
        (["experiment=1e4x"], {"experiment": "1e4x"}),
        (["experiment=2026-01-31"], {"experiment": "2026-01-31"}),
        (["attention=[8, 16]"], {"attention": [8, 16]}),
        (["clip=null"], {"clip": None}),
        (
            ["evaluate.samples=5", "evaluate.inception=a=b"],
            {"evaluate": {"samples": 5, "inception": "a=b"}},
        ),
        (["evaluate={samples: 5}", "evaluate.samples=6"], {"evaluate": {"samples": 6}}),
        (["batch=1", "batch=2"], {"batch": 2}),
        (["data='1: 2'"], {"data": "1: 2"}),
        (["data=a b"], {"data": "a b"}),
        (["data=дом"], {"data": "дом"}),
    ],
)
def test_values_are_yaml_keys_nest_and_the_last_wins(assignments, tree):
    found = override({}, assignments)
    assert found == tree
    assert [type(value) for value in found.values()] == [type(value) for value in tree.values()]


def test_overrides_that_cannot_be_read_are_all_named():
    with pytest.raises(ConfigError, match="2 errors on the command line:") as error:
        override({}, ["x", "a=1", "b=[1"])
    assert '"x" is not of the form' in str(error.value) and 'b: found "[1"' in str(error.value)


def test_an_override_leaves_its_tree_alone():
    tree = {"evaluate": {"samples": 5}}
    assert override(tree, ["evaluate.samples=6"]) == {"evaluate": {"samples": 6}}
    assert tree == {"evaluate": {"samples": 5}}


def test_a_run_file_is_read_and_overridden(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: sagan\nbatch: 12\ng_lr: 1e-3\nmachine: {keep: 1}\n")
    module, tree = resolve_recipe(str(path))
    run = validate(module.Settings, tree, ["data=d", "batch=24", "machine.workers=0"])
    assert (run.batch, run.g_lr, run.machine.keep, run.machine.workers) == (24, 1e-3, 1, 0)


# ---- what is refused
def test_every_fault_is_told_at_once():
    text = fault(
        "word", "batch=0", "bacth=3", "g_lr=fast", "machine.kep=2", "seed=[", "watch.window=0"
    )
    assert text.startswith("7 errors in the settings of sagan:\n")
    assert len(text.splitlines()) == 8
    for part in (
        '"word" is not of the form key=value',
        "batch: found 0; input should be greater than 0",
        "bacth: unknown key (did you mean batch?)",
        'g_lr: found "fast"',
        "machine.kep: unknown key (did you mean machine.keep?)",
        'seed: found "[", which is not valid YAML',
        "watch.window: found 0",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("evalute.samples", "evaluate.samples"),
        ("samples", "evaluate.samples"),
        ("folder", "machine.folder"),
        ("dаta", "data"),
        ("learning_rate_of_everything", None),
    ],
)
def test_an_unknown_key_names_the_nearest(typo, meant):
    assert (
        f"did you mean {meant}?" if meant else "`--help` after the recipe lists every key"
    ) in fault(f"{typo}=3")


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("batch=true", "batch: found true; this setting is not true or false"),
        ("batch=16.5", "batch: found 16.5; input should be a valid integer"),
        ("epochs=0", "epochs: found 0; input should be greater than 0"),
        ("epochs=-1", "epochs: found -1"),
        ("epochs=.nan", "epochs: found NaN; input should be a finite number"),
        ("epochs=1e308", "epochs: found 1e+308"),
        ("lr_restarts.first=0", "lr_restarts.first: found 0; input should be greater than 0"),
        ("lr_restarts.factor=2", "lr_restarts.factor: found 2; there is no cosine that it could"),
        ("lr_restarts={first: 5, least: 2}", "lr_restarts.least: found 2; input should be less"),
        ("betas=[0.5, 1.0]", "betas: found [0.5, 1.0]; both must be below 1"),
        ("betas=[0.5, 2]", "betas.1: found 2; input should be less than or equal to 1"),
        ("betas=[0.5]", "betas: found [0.5], which is too short"),
        ("betas=0.5", "betas: found 0.5; input should be a list"),
        ("attention=[7]", "attention.0: found 7; input should be 4, 8, 16, 32, 64 or 128"),
        ("evaluate.schedule=[]", "evaluate.schedule: found []; list should have at least 1 item"),
        ("evaluate.schedule=[10]", "evaluate.schedule.0: found 10; input should be a list"),
        ("evaluate.schedule=[[null, 10], [20, 5]]", "as in [[200, 10], [800, 20], [null, 50]]"),
        ("evaluate.schedule=[[200, 10]]", "only the last is null"),
        ("evaluate=3", "evaluate: found 3; a section, whose keys are given as evaluate.name=value"),
        ("experiment=../x", 'experiment: found "../x"; a folder\'s name of at most 100 letters'),
        ("experiment=" + "x" * 101, "experiment: found"),
        ("data=", "data: found null"),
        ('data="a\\0b"', "a NUL character"),
        ("recipe=other", "recipe: found \"other\"; input should be 'sagan'"),
        ("machine.device=tpu", "input should be 'auto', 'cpu' or 'cuda'"),
        ("latent=1000000000000", "latent: found 1000000000000"),
        ("batch=" + "1" * 5000, "which is not valid YAML"),
        ("batch=" + "x" * 100_000, "(100002 characters); input should be a valid integer"),
        ("batch=" + "[" * 5000, "which is not valid YAML"),
        ("batch={a: 1, a: 2}", "which is not valid YAML"),
        ("experiment=\udcff", "which is not valid YAML"),
        ("batch=!!python/name:os.system", "which is not valid YAML"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(assignment, said):
    text = fault(assignment)
    assert text.startswith("1 error in the settings of sagan:\n  ") and said in text
    assert len(text) < 300


BOMB = "recipe: sagan\na: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(f'*{before}' for _ in range(99))}]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


def test_a_fault_of_all_settings_together_is_told():
    class Both(Settings):
        @model_validator(mode="after")
        def _fits(self):
            raise ValueError("latent and ngf do not fit")

    tree = {"recipe": "sagan", "data": "d"}
    with pytest.raises(ConfigError, match=r"1 error .*\n  latent and ngf do not fit$"):
        validate(Both, tree)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1\n", "must hold `key: value` lines, found list"),
        ("a: [1\n", "is not valid YAML"),
        ("recipe: sagan\nbatch: 3\nbatch: 4\n", "key batch stands twice"),
        ("recipe: sagan\nevaluate: {samples: 1, samples: 2}\n", "line 2"),
        ("recipe: sagan\nx: &a [*a]\n", "aliases (*name) are not read"),
        (BOMB, "aliases (*name) are not read"),
        ("recipe: sagan\nx: " + "[" * 5000, "nested too deeply"),
        ("recipe: sagan\nbatch: " + "1" * 5000, "is not valid YAML"),
        ("recipe: sagan\n? [1, 2]\n: 3\n", "unhashable key"),
        ("recipe: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("", "names no recipe; there are: capacity, r3gan, sagan"),
        ("recipe: [sagan]\n", "no recipe"),
        (b"\xff\xfe\x00", "is not valid YAML"),
    ],
    ids=range(13),
)
def test_a_broken_run_file_is_named(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        resolve_recipe(str(path))
    assert said in str(caught.value) and ("mine.yaml" in str(caught.value) or said == "no recipe")


@pytest.mark.parametrize("what", ["sagann", "", "../sagan", "x" * 5000, "SAGAN"])
def test_an_unknown_recipe_names_all_there_are(what):
    with pytest.raises(ConfigError, match="there are: " + ", ".join(recipe_names())) as caught:
        resolve_recipe(what)
    assert ("did you mean sagan" in str(caught.value)) == (what in ("sagann", "../sagan"))


def test_two_schedules_of_rates_are_refused():
    assert "with lr_every=100 there are two schedules; leave one out" in fault(
        "lr_every=100", "lr_restarts.first=10"
    )
    schedule = of("lr_restarts.first=10", "lr_restarts.least=0.5").lr_restarts.schedule(500, 0.5)
    assert [schedule(epoch) for epoch in (0, 10, 510)] == [1, 1, 1] and schedule(9.99) < 0.51
    assert [of().lr_restarts.schedule(500, 0.5)(epoch) for epoch in (499, 500)] == [1, 0.5]
    assert of().lr_restarts.schedule()(1e6) == 1


# ---- what makes two runs one
@pytest.mark.parametrize(
    "assignment",
    [
        "machine.accumulation=2",
        "machine.folder=x",
        "machine.keep=9",
        "epochs=3",
        "experiment=other",
        "data=elsewhere",
    ],
)
def test_where_and_how_far_do_not_change_the_identity(assignment):
    assert of(assignment).identity("abc") == of().identity("abc")


CHANGES = {
    "rollback_every": 5,
    "latent": 8,
    "ngf": 8,
    "ndf": 8,
    "attention": [],
    "attention_reduction": 4,
    "bn_group": 8,
    "bn_group_max": 8,
    "g_lr": 1,
    "d_lr": 1,
    "betas": [0, 0],
    "weight_decay": 1,
    "lr_every": None,
    "lr_factor": 1,
    "lr_restarts": {"first": 10},
    "clip": None,
    "ema": None,
    "real_label": 1,
    "fake_label": 1,
    "hflip": 0,
    "vflip": 0,
    "d_steps": 2,
    "g_steps": 2,
    "seed": 1,
    "batch": 8,
    "precision": "float64",
    "patience": 9,
    "validate_every": 1,
    "sample_every": 1,
    "max_skips": 1,
    "shuffle_window": 8,
    "evaluate": {"samples": 9},
    "watch": {"window": 9},
    "grow": "runs/a@best",
    "fine_tune": "runs/a@best",
    "loss": "hinge",
    "spectral_norm": [],
    "diffaugment": ["cutout"],
    "conditional": True,
    "ema_kimg": 10,
    "ada": True,
    "ada_target": 0.5,
    "ada_kimg": 100,
    "ada_every": 1,
    "ada_operations": ["flip"],
    "ada_limit": 0.5,
}
# Settings that mean something beside another one: that one, and a change.
CHANGES_BESIDE = {
    "label": ({"conditional": True}, "shape"),
    "class_share": ({"conditional": True}, "uniform"),
    "ema_rampup": ({"ema_kimg": 10}, 0.1),
    "freeze_d": ({"fine_tune": "runs/b@best"}, 1),
}


def test_where_the_inception_weights_lie_does_not_change_the_identity():
    """All paths name the same file, whose SHA-256 is checked.

    That it is used at all does change the run.
    """
    there, here, none = (
        validate(Settings, BASE, more)
        for more in (["evaluate.inception=/scratch/a.pth"], ["evaluate.inception=b.pth"], [])
    )
    assert there.identity("f") == here.identity("f") and there.delta() == here.delta()
    assert there.identity("f")["id"] != none.identity("f")["id"] and none.delta() == "default"


def test_every_other_setting_changes_the_identity():
    changes = CHANGES.keys() | CHANGES_BESIDE.keys()
    assert changes | Settings.unhashed() | {"recipe"} == Settings.model_fields.keys()
    ids = {
        name: validate(Settings, BASE | {name: value}).identity("abc")["id"]
        for name, value in CHANGES.items()
    }
    for name, (beside, value) in CHANGES_BESIDE.items():
        ids[name] = validate(Settings, BASE | beside | {name: value}).identity("abc")["id"]
    assert len({of().identity("abc")["id"], *ids.values()}) == len(ids) + 1
    assert of().identity("abd")["id"] != of().identity("abc")["id"]
    assert re.fullmatch("[0-9a-f]{8}", of().identity("abc")["id"])


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "attention": st.lists(st.sampled_from([8, 16, 32])),
            "g_lr": st.floats(1e-300, 1e9),
            "evaluate": st.fixed_dictionaries({"inception": st.text(st.characters(codec="utf-8"))}),
        },
    )
)
def test_the_name_of_a_run_is_a_safe_file_name(tree):
    if "\0" in tree.get("evaluate", {}).get("inception", ""):
        return
    name = validate(Settings, BASE | tree).delta()
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.,_-]{0,59}", name)


def test_the_name_of_a_run_says_what_is_not_default():
    assert of().delta() == "default"
    assert of("ngf=32", "batch=12", "epochs=3", "machine.keep=1").delta() == "batch12,ngf32"


# ---- what is explained
def test_every_setting_is_described():
    def keys(model, prefix=""):
        for name, field in model.model_fields.items():
            section = isinstance(field.annotation, type) and issubclass(
                field.annotation, (Section, Watch)
            )
            yield from keys(field.annotation, f"{prefix}{name}.") if section else [prefix + name]

    rows = describe(Settings)
    assert [key for key, *_ in rows] == list(keys(Settings))
    assert [key for key, *_, meaning in rows if len(meaning) < 10] == []
    usual = {key: default for key, _, default, _ in rows}
    assert usual["batch"] == "16" and usual["data"] == "(required)"


# ---- how a batch is shared
def test_settings_share_a_batch_or_say_what_fits():
    assert (
        str(fit(24, 2, 2, 6)) == "batch 24 = 2 ranks x 2 micro-batches x 6 per rank, in groups of 6"
    )
    with pytest.raises(
        ConfigError,
        match=(
            r"global batch of 16 cannot be shared by 3 ranks x 1 .*: 3 does not divide 16. Fit, .*:"
            r" batch 15, 18; "
            r"or number of processes 1, 2, 4, 8, 16\."
        ),
    ):
        fit(16, 3, 1)
    with pytest.raises(
        ConfigError,
        match=(
            "groups of 16 samples does not fit micro-batches of 8 samples .*machine.accumulation"
            " 1.* bn_group that divides 8"
        ),
    ):
        fit(16, 2, 2, 16)


@given(
    st.integers(1, 200),
    st.integers(1, 9),
    st.integers(1, 9),
    st.one_of(st.integers(1, 24), st.none()),
)
def test_a_breakdown_is_exact_and_its_advice_fits(batch, ranks, accumulation, fixed):
    def group_of(batch):
        return fixed or reference_group(batch, 16)

    def shared(batch, ranks, accumulation):
        found = fit(batch, ranks, accumulation, group_of(batch), group_of)
        assert found.ranks * found.accumulation * found.per_rank == batch
        assert found.ranks * found.per_rank % found.group == 0

    try:
        shared(batch, ranks, accumulation)
    except ConfigError as error:
        told = re.search(r"asked: (.*?)\. Another", str(error))[1]
        for part in told.split("; or "):
            if advice := re.fullmatch(
                r"(batch|machine.accumulation|number of processes) ([\d, ]+)", part
            ):
                for n in map(int, advice[2].split(", ")):
                    shared(
                        *{
                            "batch": (n, ranks, accumulation),
                            "machine.accumulation": (batch, ranks, n),
                            "number of processes": (batch, n, accumulation),
                        }[advice[1]]
                    )
            elif advice := re.fullmatch(r"a bn_group that divides (\d+)", part):
                assert ranks * fit(batch, ranks, accumulation, int(advice[1])).per_rank == int(
                    advice[1]
                )
            else:
                assert part == "nothing near"


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_the_default_group_is_the_largest_divisor_up_to_the_reference(batch, reference):
    group = reference_group(batch, reference)
    assert batch % group == 0 and group <= reference
    assert not any(batch % n == 0 for n in range(group + 1, min(batch, reference) + 1))


def test_the_nearest_batches_and_the_first_twelve_ways_are_offered():
    with pytest.raises(ConfigError) as error:
        fit(6, 2, 1, 4, lambda batch: 4)
    assert "batch 4, 8; or number of processes" not in str(error.value)
    assert "instead of what was asked: batch 4, 8; or a bn_group that divides 6" in str(error.value)
    twelve = "1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 15, 16"
    with pytest.raises(ConfigError, match=f"number of processes {twelve}. Another batch"):
        fit(720, 7, 1, 1)
    with pytest.raises(ConfigError, match=f"machine.accumulation {twelve}. Another"):
        fit(720, 1, 7, 1)


def test_epochs_have_an_end_so_that_samples_can_be_counted():
    assert validate(Settings, {"recipe": "sagan", "data": "d", "epochs": 1e9}).epochs == 1e9
    with pytest.raises(ConfigError, match="epochs"):
        validate(Settings, {"recipe": "sagan", "data": "d", "epochs": 1.5e9})


def test_settings_need_no_torch():
    program = (
        "import sys; sys.modules['torch'] = None; from distgan.config import loading; from"
        " distgan.core import rng, console; from distgan.runs import folder;"
        " print(loading.override({}, ['a=1']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True
    )
    assert done.stdout == "{'a': 1}\n", done.stderr


def test_where_a_weights_file_lies_is_not_part_of_the_run():
    """The file itself can only be the published one.

    Whether there is one decides what the score is.
    """
    here, there, none = (
        of(f"evaluate.inception={path}") for path in ("/a/weights.pth", "/b/w.pth", "null")
    )
    assert here.identity("f")["id"] == there.identity("f")["id"] != none.identity("f")["id"]
    assert here.delta() == "inceptionpublished"
