"""Every notebook is one pytest item, run top to bottom in a fresh process.

nbs/jobs is run by papermill in test_grid.py, nbs/bench by `make bench`.
"""

import multiprocessing
import os
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
# each notebook has a process of its own, forked from one that has imported what most need
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["nbdev.test", "torch", "sklearn.svm", "plotly.graph_objects", "xarray"]
)


def run_notebook(path, log):
    """Run a notebook in this process; all that it prints goes to the file `log`."""
    os.chdir(ROOT)
    with open(log, "w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    from nbdev.test import test_nb

    passed, _ = test_nb(path)
    sys.exit(not passed)


class Notebook(pytest.Item):
    """One notebook; a failure shows the notebook's own traceback."""

    def runtest(self):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            log.touch()
            process = FORKS.Process(target=run_notebook, args=(self.path, log))
            process.start()
            process.join()
            if process.exitcode:
                raise AssertionError(log.read_text(errors="replace")[-6000:])

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
