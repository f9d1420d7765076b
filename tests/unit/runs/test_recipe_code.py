"""The code of a recipe that is not distgan's: which files, what its digest sees, whose copy."""

import os
import zipfile

import pytest

from distgan.core.errors import ConfigError
from distgan.runs.recipe_code import collect, from_copy

MAIN = '''"""About."""
import os, json
import layers                      # beside it
from nets.image import Net         # a package without __init__.py
from nets import sound as other

class Recipe:
    """Doc."""
    def step(self, batches, now):
        from late import thing     # within a function
        return thing(1 + 2)

def helper():
    return None
'''


@pytest.fixture
def project(tmp_path):
    """A recipe with modules beside it, and files that it does not import."""
    root = tmp_path / "project"
    texts = {
        "my_gan.py": MAIN,
        "layers.py": "from nets.image import Net\nimport torch\n",
        "nets/image.py": "class Net: pass\n",
        "nets/sound.py": "import numpy.linalg\n",
        "late.py": "import my_gan\n",
        "other.py": "",
        "json.py": "",
        "data/x.py": "",
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def code(root, name="my_gan.py"):
    return collect(root / name, "Recipe", "my_gan")


def test_the_modules_that_it_imports_come_along_and_no_others(project):
    found = code(project)
    assert [*found.files] == ["late.py", "layers.py", "my_gan.py", "nets/image.py", "nets/sound.py"]
    assert found.path == project / "my_gan.py" and found.module == "my_gan"
    assert found.paths == {str(project / name) for name in found.files}


def test_a_file_in_a_package_is_imported_as_part_of_it(tmp_path):
    package = tmp_path / "pkg" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from . import base\n")
    (package / "base.py").write_text("")
    (package / "gan.py").write_text("from .base import x\nfrom ..top import y\nfrom . import z\n")
    (tmp_path / "pkg" / "top.py").write_text("")
    found = collect(package / "gan.py", "Recipe", "gan")
    assert found.module == "pkg.inner.gan" and found.root == tmp_path
    assert {*found.files} == {
        "pkg/__init__.py",
        "pkg/inner/__init__.py",
        "pkg/inner/base.py",
        "pkg/inner/gan.py",
        "pkg/top.py",
    }


def test_of_an_installed_package_only_its_own_modules(tmp_path):
    site = tmp_path / "site-packages"
    (site / "theirs").mkdir(parents=True)
    (site / "theirs" / "__init__.py").write_text("")
    (site / "theirs" / "gan.py").write_text("import theirs.nets, neighbour\n")
    (site / "theirs" / "nets.py").write_text("")
    (site / "neighbour.py").write_text("")
    found = collect(site / "theirs" / "gan.py", "Recipe", "gan", "theirs.gan")
    assert {*found.files} == {"theirs/__init__.py", "theirs/gan.py", "theirs/nets.py"}


SAME = [
    ("import layers                      # beside it", "import layers"),
    ('"""About."""\n', ""),
    ('    """Doc."""\n', '    """Another docstring,\n    longer."""\n'),
    ("    return None", "    return (\n        None\n    )"),
]
OTHER = [
    ("1 + 2", "1 + 3", "my_gan.py: Recipe.step"),
    ("1 + 2", "1 - 2", "my_gan.py: Recipe.step"),
    ("return None", "return 0", "my_gan.py: helper"),
    ("class Recipe:", "class Recipe(dict):", "my_gan.py: Recipe"),
    ("import os, json", "import os", "my_gan.py"),
]


def test_the_digest_sees_the_syntax_of_all_files_and_no_comments(project):
    before = code(project)
    for old, new in SAME:
        (project / "my_gan.py").write_text(MAIN.replace(old, new))
        assert code(project).digest == before.digest and not code(project).changed_from(before)
    for old, new, part in OTHER:
        assert old in MAIN
        (project / "my_gan.py").write_text(MAIN.replace(old, new))
        assert code(project).digest != before.digest
        assert code(project).changed_from(before) == [part]
    (project / "my_gan.py").write_text(MAIN)
    (project / "nets/sound.py").write_text("x = 1\n")
    assert code(project).changed_from(before) == ["nets/sound.py"]
    (project / "other.py").write_text("x = 1\n")
    (project / "nets/sound.py").write_text("import numpy.linalg\n")
    assert code(project).digest == before.digest


def test_another_class_or_module_of_the_same_files_is_other_code(project):
    codes = [
        code(project),
        collect(project / "my_gan.py", "Other", "my_gan"),
        collect(project / "late.py", "Recipe", "my_gan"),
    ]
    assert codes[0].files == codes[2].files and len({each.digest for each in codes}) == 3


def test_a_copy_is_the_same_code_without_the_files(project, tmp_path):
    before = code(project)
    path = before.copy_to(tmp_path / "new" / "copies")
    assert before.copy_to(path.parent) == path and len([*path.parent.iterdir()]) == 1
    for file in project.glob("*.py"):
        file.unlink()
    copy = from_copy(path)
    assert (copy.digest, copy.files, copy.module) == (before.digest, before.files, before.module)
    assert not path.stat().st_mode & 0o022


def test_a_copy_that_others_may_have_written_is_not_read(project, tmp_path):
    path = code(project).copy_to(tmp_path)
    path.chmod(0o664)
    with pytest.raises(ConfigError, match="may be written by other users: .*copy") as told:
        from_copy(path)
    assert str(told.value).count(path.name) == 1
    assert from_copy(code(project).copy_to(tmp_path)).name == "my_gan"  # is written anew
    if os.getuid() == 0:
        os.chown(path, 12345, 12345)
        with pytest.raises(ConfigError, match="belongs to 12345"):
            from_copy(path)
    link = tmp_path / "link.zip"
    link.symlink_to(path)
    with pytest.raises(ConfigError, match="it is a link"):
        from_copy(link)


def hostile(path, **files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name.replace("__", "."), data)
    path.chmod(0o600)
    return path


def test_a_damaged_copy_is_one_error(tmp_path):
    about = '{"name": "a", "module": "a", "attribute": "Recipe"}'
    for files in (
        {"a__py": ""},
        {"recipe__json": "[]"},
        {"recipe__json": '{"name": "a"}', "a__py": ""},
        {"recipe__json": about.replace('"a"', "3"), "a__py": ""},
        {"recipe__json": about, "b__py": ""},
        {"recipe__json": about, "a__py": b"\0" * (17 << 20)},
        {"recipe__json": "[" * 1000, "a__py": ""},
    ):
        with pytest.raises(ConfigError, match="is no copy of a recipe's code"):
            from_copy(hostile(tmp_path / "x.zip", **files))
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(ConfigError, match="is no copy of a recipe's code"):
        from_copy(tmp_path / "x.zip")


def test_source_that_is_not_python_names_the_line(project):
    (project / "layers.py").write_text("x = 1\ndef f(:\n")
    with pytest.raises(ConfigError, match=r"layers\.py:2: "):
        code(project)
    (project / "layers.py").write_bytes(b"x = '\xff'\n")
    with pytest.raises(ConfigError, match=r"layers\.py"):
        code(project)
