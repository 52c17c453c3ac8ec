"""Every notebook is one pytest item, run top to bottom in a fresh process.

nbs/jobs is run by papermill in test_grid.py, nbs/bench by `make bench`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
# two workers share two cores; set before torch and numpy are imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
# the bits do not matter to most tests, their speed does; test_arithmetic.py sets its own modes
os.environ.setdefault("EMO_ARITHMETIC", "native")
# fingerprints of test files stay out of the user's cache
os.environ.setdefault("EMO_CACHE", str(Path(tempfile.gettempdir()) / "emo_lib-tests"))
RUN = """
import sys
from pathlib import Path
from nbdev.test import test_nb
passed, seconds = test_nb(Path(sys.argv[1]))
sys.exit(not passed)
"""


class Notebook(pytest.Item):
    """One notebook; a failure shows the notebook's own traceback."""

    def runtest(self):
        line = [sys.executable, "-c", RUN, str(self.path)]
        done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise AssertionError(done.stderr[-6000:] or done.stdout[-6000:])

    def repr_failure(self, excinfo):
        return str(excinfo.value)

    def reportinfo(self):
        return self.path, 0, f"notebook {self.path.relative_to(ROOT)}"


class NotebookFile(pytest.File):
    """The collector of one notebook."""

    def collect(self):
        yield Notebook.from_parent(self, name=self.path.stem)


def pytest_collect_file(parent, file_path):
    is_notebook = file_path.suffix == ".ipynb"
    if is_notebook and not {"jobs", "bench", ".ipynb_checkpoints"} & set(file_path.parts):
        return NotebookFile.from_parent(parent, path=file_path)


# a worker that begins one of these last keeps the other worker waiting
LONGEST = ("tests/test_grid.py", "nbs/papers/", "nbs/models/70_msmae", "tests/test_seed")


def pytest_collection_modifyitems(items):
    """The longest modules first, the others in their order."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(scope="session")
def repo():
    return ROOT
