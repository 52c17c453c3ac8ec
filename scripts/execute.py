"""Execute notebooks in place, each in a fresh kernel: those named, or all but jobs/ and bench/."""

import subprocess
import sys
from pathlib import Path

NBS = Path(__file__).resolve().parents[1] / "nbs"
LEFT_OUT = {"jobs", "bench", ".ipynb_checkpoints"}


def all_notebooks():
    """Every notebook that `make test` runs, in reading order."""
    return sorted(path for path in NBS.rglob("*.ipynb") if not LEFT_OUT & set(path.parts))


for notebook in map(Path, sys.argv[1:] or all_notebooks()):
    print(notebook, flush=True)
    command = ["jupyter", "execute", "--inplace", "--timeout=1800", str(notebook)]
    subprocess.run(command, check=True)
