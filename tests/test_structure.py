"""The rooms: what imports what, one notebook per module, one style."""

import ast
import json
import re
import subprocess
import sys

import pytest

ROOMS = ["base", "data", "signals", "twins", "samples", "protocols", "nets", "training"]
ROOMS += ["models", "run", "report", "papers", "cli"]


def modules(repo):
    "{dotted name: path} of every module in a room."
    paths = sorted((repo / "emo_lib").rglob("*.py"))
    inside = [p for p in paths if len(p.relative_to(repo).parts) > 2 and p.name != "__init__.py"]
    return {".".join(p.relative_to(repo).with_suffix("").parts): p for p in inside}


def imports_of(name, path):
    "[(module, name)] of every import from this package, also those inside functions."
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = name.split(".")[: -node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
    return [(module, what) for module, what in found if module.startswith("emo_lib.")]


def faults_of_imports(name, path):
    "Lines on imports that go up, into a private name, or into another paper."
    _, room, *rest = name.split(".")
    for module, what in imports_of(name, path):
        other = module.split(".")[1]
        if ROOMS.index(other) > ROOMS.index(room):
            yield f"{name} imports {module}, which lies above it"
        if what.startswith("_") and other != room:
            yield f"{name} imports the private {module}.{what}"
        is_paper = room == other == "papers" and len(rest) == 2 and len(module.split(".")) == 4
        if is_paper and module.split(".")[2] != rest[0]:
            yield f"{name} imports {module}, another paper"


def test_every_module_lies_in_a_room(repo):
    assert {name.split(".")[1] for name in modules(repo)} <= set(ROOMS)


def test_imports_look_down_and_reach_no_private_name(repo):
    faults = [f for name, path in modules(repo).items() for f in faults_of_imports(name, path)]
    assert faults == []


@pytest.mark.parametrize(
    "line, words",
    [
        ("from ..run.grid import GridSpec", "lies above it"),
        ("from ..base.store import _secret", "the private"),
        ("def f():\n    from emo_lib.report.tables import load_results", "lies above it"),
    ],
)
def test_the_import_test_sees_a_fault(tmp_path, line, words):
    path = tmp_path / "module.py"
    path.write_text(line)
    assert words in "; ".join(faults_of_imports("emo_lib.models.module", path))


def test_every_module_is_the_export_of_its_notebook(repo):
    exported = {}
    for book in sorted((repo / "nbs").rglob("*.ipynb")):
        cells = json.loads(book.read_text())["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        if target := re.search(r"^#\|\s*default_exp\s+(\S+)", text, re.M):
            exported[f"emo_lib.{target[1]}"] = book.relative_to(repo / "nbs")
    assert set(exported) == set(modules(repo))
    for module, book in exported.items():
        room = ".".join(book.parts[:-1])
        name = re.fullmatch(r"\d\d_(\w+)", book.stem)
        assert name and module == f"emo_lib.{room}.{name[1]}", f"{book} exports {module}"


@pytest.mark.parametrize("arguments", [["format", "--check"], ["check"]])
def test_notebooks_scripts_and_tests_follow_the_style(repo, arguments):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "."], cwd=repo, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
