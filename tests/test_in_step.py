"""The notebooks, the package and the README say the same thing."""

import ast
import filecmp
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import emo_lib


def copy_of(repo, tmp_path):
    "What git tracks, in the state of the working tree, without touching the working tree."
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=repo, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for f in filter(None, files):
        if (repo / f).exists():
            (tmp_path / f).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repo / f, tmp_path / f)
    return [f for f in files if f and (repo / f).exists()]


def changed(repo, tmp_path, files):
    return [f for f in files if not filecmp.cmp(repo / f, tmp_path / f, shallow=False)]


def test_export_and_clean_change_nothing(repo, tmp_path):
    files = copy_of(repo, tmp_path)
    bin = Path(sys.executable).parent
    for tool in ("nbdev_export", "nbdev_clean"):
        subprocess.run(
            [sys.executable, bin / tool], cwd=tmp_path, check=True, capture_output=True, text=True
        )
    assert changed(repo, tmp_path, files) == [], (
        "edit notebooks only, then run `make nbs` or nbdev_export and nbdev_clean"
    )
    new = {str(p.relative_to(tmp_path)) for p in (tmp_path / "emo_lib").rglob("*.py")} - set(files)
    assert not new, f"exported modules that git does not know: {new}"


def test_an_edit_of_the_module_alone_is_seen(repo, tmp_path):
    copy_of(repo, tmp_path)
    module = tmp_path / "emo_lib/base/store.py"
    module.write_text(module.read_text() + "\n# edited by hand\n")
    subprocess.run(
        [sys.executable, Path(sys.executable).parent / "nbdev_export"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert changed(repo, tmp_path, ["emo_lib/base/store.py"]) == [], (
        "nbdev_export must write the module anew"
    )


def test_readme_is_made_from_the_index(repo):
    subprocess.run([sys.executable, "scripts/readme.py", "--check"], cwd=repo, check=True)


def test_importing_the_package_is_light(repo):
    code = "import sys, emo_lib; sys.exit('torch' in sys.modules or 'mne' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=repo, check=True)


def definitions(repo):
    "(module, node) of every function and class whose name begins without an underscore."
    for path in sorted((repo / "emo_lib").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            is_definition = isinstance(node, (ast.FunctionDef, ast.ClassDef))
            if is_definition and not node.name.startswith("_"):
                yield path.relative_to(repo), node


def test_every_name_has_a_docstring(repo):
    bare = [
        f"{path}: {node.name}" for path, node in definitions(repo) if not ast.get_docstring(node)
    ]
    assert bare == []


def test_names_that_the_package_offers_have_numpydoc_sections():
    bare = []
    for name in emo_lib.__all__:
        value = getattr(emo_lib, name)
        takes_parameters = inspect.isfunction(value) or inspect.isclass(value)
        if takes_parameters and "Parameters\n" not in (inspect.getdoc(value) or ""):
            bare.append(name)
    assert set(bare) <= {"LayoutError"}, bare
