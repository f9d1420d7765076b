"""A recipe of one's own, from anywhere: found, imported, refused in one sentence."""

import importlib
import os
import sys
import warnings
from pathlib import Path

import pytest
import yaml

from distgan.core.errors import ConfigError
from distgan.launchers.sweeps import definition
from distgan.recipes import _catalog
from distgan.recipes._own_code import unload

TEMPLATE = Path(_catalog.__file__).parent / "templates" / "image.py"
HEAD = "from distgan import api\n"
SMALL = HEAD + "class Settings(api.Run): pass\nclass Recipe:\n    def step(self, b, n): pass\n"


def setting(line):
    return SMALL.replace("pass\n", line + "\n", 1)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    unload()


def recipe(text=SMALL, path="my_gan.py"):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return path


def test_by_its_file_its_import_path_and_an_entry_point(here, monkeypatch):
    recipe(TEMPLATE.read_text(), "own/gans.py")
    recipe(SMALL, "all/__init__.py")
    assert _catalog.resolve_recipe("all/__init__.py")[1] == {"recipe": "all"}
    Path("own/__init__.py").write_text("")
    for what, name in (
        ("own/gans.py", "gans"),
        (str(here / "own/gans.py"), "gans"),
        ("own.gans", "own.gans"),
        ("own.gans:Recipe", "own.gans.Recipe"),
    ):
        module, tree = _catalog.resolve_recipe(what)
        assert (module.code.name, tree["recipe"]) == (name, name)
        assert module.Settings(data="x", **tree).recipe == name
        assert str(here / "own/gans.py") in module.code.paths
    recipe("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n", "dist/own-1.0.dist-info/METADATA")
    declared = "[distgan.recipes]\ntheirs = own.gans:Recipe\n"
    recipe(declared, "dist/own-1.0.dist-info/entry_points.txt")
    monkeypatch.syspath_prepend(str(here / "dist"))
    module, tree = _catalog.resolve_recipe("theirs")
    assert tree["recipe"] == "theirs" and "theirs" in _catalog.recipe_names()


def test_modules_of_a_recipe_may_be_imported_before_it(here, monkeypatch):
    """As in a notebook; they are imported anew, from the sources of the digest, and the program
    keeps its own.
    """
    monkeypatch.syspath_prepend(str(here))
    recipe(SMALL + "from own_nets import g\nRecipe.value = g.value\n")
    recipe("value = 1\n", "own_nets/g.py")
    for name in ("own_nets", "own_nets.g", "my_gan"):
        importlib.import_module(name)
    recipe("value = 2\n", "own_nets/g.py")
    module, _ = _catalog.resolve_recipe("my_gan.py")
    assert module.Recipe.value == 2 and sys.modules["own_nets.g"].value == 1
    for name in ("own_nets", "own_nets.g", "my_gan"):
        del sys.modules[name]


def test_a_name_that_two_packages_declare_is_refused(here, monkeypatch):
    for package in ("one", "two"):
        about = f"dist/{package}-1.0.dist-info"
        recipe(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", f"{about}/METADATA")
        recipe(f"[distgan.recipes]\ntheirs = {package}:Gan\n", f"{about}/entry_points.txt")
    monkeypatch.syspath_prepend(str(here / "dist"))
    with pytest.raises(ConfigError, match="several .* declare a recipe theirs.*: one:Gan, two:Gan"):
        _catalog.resolve_recipe("theirs")


def test_a_class_of_another_name_may_have_its_own_settings():
    text = SMALL + "class MyGAN(Recipe):\n    class Settings(api.Run):\n        width: int = 5\n"
    module, tree = _catalog.resolve_recipe(recipe(text) + ":MyGAN")
    assert tree["recipe"] == "my_gan.MyGAN" and "width" in module.Settings.model_fields


def test_nothing_beside_it_hides_another_module():
    """Modules beside the recipe are imported only where it imports them."""
    recipe("raise SystemExit", "random.py"), recipe("raise SystemExit", "colorsys.py")
    recipe("raise SystemExit", "yaml.py"), recipe("y = 2", "nets/deep/inner.py")
    recipe("x = 1", "layers.py")
    text = "import colorsys, random\nimport layers\nfrom nets.deep import inner\n" + SMALL
    text += (
        "def later():\n    import layers as a\n    from nets.deep.inner import y\n    return y\n"
    )
    module, _ = _catalog.resolve_recipe(recipe(text))
    for path in ("layers.py", "nets/deep/inner.py"):
        Path(path).unlink()
    for name in ("layers", "nets.deep.inner", "nets.deep"):
        sys.modules.pop(name)
    assert sys.modules["my_gan"].later() == 2  # from the sources that were read
    import yaml

    assert yaml.safe_load("1") == 1


def test_code_is_read_anew_once_it_has_changed():
    first, _ = _catalog.resolve_recipe(recipe())
    assert _catalog.resolve_recipe("my_gan.py")[0].Settings is first.Settings
    recipe(SMALL.replace("pass\nclass", "width: int = 1\nclass"))
    second, _ = _catalog.resolve_recipe("my_gan.py")
    assert "width" in second.Settings.model_fields and "width" not in first.Settings.model_fields


FAULTS = {
    "no file": ("", "no_gan.py", r"no file no_gan\.py; `distgan new no_gan\.py` writes one"),
    "syntax": ("x = 1\nif\n", "", r"my_gan\.py:2: invalid syntax"),
    "raises": ("x = 1\n\nprint(y)\n", "", r"my_gan\.py:3: NameError: name 'y' is not defined"),
    "exits": ("raise SystemExit(3)\n", "", r"my_gan\.py:1: SystemExit: 3"),
    "no module": ("import nonesuch\n", "", r"my_gan\.py:1: ModuleNotFoundError: .*nonesuch"),
    "no settings": (SMALL.replace("Settings", "Options"), "", "has no class Settings; needed is"),
    "other settings": (SMALL.replace("(api.Run)", ""), "", "needed is `class Settings.api.Run.:`"),
    "no recipe": (SMALL.replace("Recipe", "Gan"), "", "has no class Recipe; give my_gan.py:Gan"),
    "no step": (SMALL.replace("step", "steps"), "", r"has no method step\(batches, now\)"),
    "kind": (SMALL.replace("pass\n", "kind = 'video'\n", 1), "", "kind is 'video'; allowed are"),
    "field recipe": (SMALL.replace("pass\n", "recipe: int = 1\n", 1), "", "field `recipe`; delete"),
    "inherited": (
        SMALL.replace("api.Run", "sagan.Settings").replace(
            "api", "api\nfrom distgan.recipes import sagan", 1
        ),
        "",
        "write `recipe: str` where it is inherited",
    ),
    "field code": (setting("code: int = 8"), "", "field `code`, which is a setting of every run"),
    "field epochs": (setting("epochs: str = '8'"), "", "write `epochs: float = …`; for a"),
    "no type": (setting("epochs = 8"), "", "a setting has a type, as in `epochs: float = 30`"),
    "field kind": (
        setting("kind: str = 'pair'"),
        "",
        "field `kind`, which is no setting; write `kind",
    ),
    "field group": (
        setting("group: int = 2"),
        "",
        "`group`, which is a property .* `def group.self",
    ),
    "field identity": (setting("identity: float = 5"), "", "`identity`, which is a method of api"),
    "unknown type": (setting("net: 'Nets' = None"), "", "Settings: .*Nets"),
    "no JSON": (setting("act: object = print"), "", "Settings: Unable to serialize"),
    "a set": (
        setting("at: dict = {'a': [{1}]}"),
        "",
        "has the set .1., which has no fixed order .* a tuple",
    ),
    "dots": (SMALL, "gan.v2.py", "imports no file of this name; rename it to gan_v2.py"),
    "name taken": (SMALL, "sagan.py", "has the name of distgan's own recipe sagan; rename it"),
    "name in use": (SMALL, "pytest.py", "another module of this name is in use"),
    "odd name": (SMALL, "my gan.py", "allowed are at most 100 letters, digits"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_recipe_is_refused_with_its_line(fault):
    text, path, message = FAULTS[fault]
    path = path or "my_gan.py"
    if text:
        recipe(text, path)
    with warnings.catch_warnings(), pytest.raises(ConfigError, match=message) as caught:
        warnings.simplefilter("ignore")  # pydantic's, of a field that hides an attribute
        _catalog.resolve_recipe(path)
    assert "\n" not in str(caught.value)


def test_in_a_run_file_relative_to_it(here):
    recipe(SMALL, "there/my_gan.py")
    Path("there/run.yaml").write_text(yaml.safe_dump({"recipe": "my_gan.py", "batch": 3}))
    module, tree = _catalog.resolve_recipe("there/run.yaml")
    assert tree == {"recipe": "my_gan", "batch": 3} and module.code.root == here / "there"


def test_a_module_beside_it_that_is_not_found_is_explained():
    recipe("from importlib import import_module\nimport_module('nets')\n")
    recipe("import parts\n", "pkg/gan.py")
    for path in ("pkg/__init__.py", "pkg/parts.py", "nets.py"):
        recipe("", path)
    for path, hint in {
        "my_gan.py": "'nets'; nets.py is found by an import statement",
        "pkg/gan.py": "'parts'; parts.py is in the package pkg: `from . import parts`",
    }.items():
        with pytest.raises(ConfigError, match=hint):
            _catalog.resolve_recipe(path)


def test_a_run_whose_code_is_gone_says_so():
    Path("config.yaml").write_text("recipe: my_gan\n")
    Path("other.yaml").write_text(f"recipe: {recipe()}\n")
    assert _catalog.resolve_recipe("other.yaml")[1] == {"recipe": "my_gan"}
    Path("identity.json").write_text('{"code": {"digest": "0", "copy": "my_gan-0.zip"}}')
    with pytest.raises(ConfigError, match=r"trained with is gone: recipe/my_gan-0\.zip\. Restore"):
        _catalog.resolve_recipe("config.yaml")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(
    "harm, why",
    [
        (lambda path: os.chmod(path, 0o666), "may be written by everybody"),
        (lambda path: os.chown(path, 12345, 12345), "belongs to 12345"),
    ],
)
@pytest.mark.parametrize("given", ["run.yaml", "sweep.yaml", "my_gan.py", "layers.py"])
def test_settings_do_not_run_a_strangers_code(given, harm, why):
    recipe("import layers\n" + SMALL), recipe("", "layers.py")
    Path("run.yaml").write_text("recipe: my_gan.py\n")
    Path("sweep.yaml").write_text("recipe: my_gan.py\ngrid: {seed: [1, 2]}\n")
    reads = {
        "run.yaml": lambda: _catalog.resolve_recipe("run.yaml"),
        "sweep.yaml": lambda: definition.read(["sweep.yaml"]),
    }
    [read() for read in reads.values()]
    harm(given)
    for read in [reads[given]] if given in reads else reads.values():
        with pytest.raises(ConfigError, match=f"{why}. If you trust it, name the recipe on"):
            read()
    assert _catalog.resolve_recipe("my_gan.py")[1] == {"recipe": "my_gan"}
