"""Write README.md from nbs/index.ipynb: prose as it is, code in fences, text outputs indented.

`--check` only compares, and exits with a message if the two differ.
"""

import re
import sys
from os.path import normpath
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
HEAD = "<!-- made from nbs/index.ipynb by scripts/readme.py: edit the notebook -->"
LINK = re.compile(r"\]\((?!http|#)([^)]+)\)")  # relative to nbs/


def output_text(output):
    """One output of a cell as markdown; "" for pictures."""
    data = output.get("data", {})
    if "text/markdown" in data:
        return data["text/markdown"]
    text = data.get("text/plain", output.get("text", "")).rstrip()
    return "\n".join(f"    {line}" for line in text.splitlines())


def cell_text(cell):
    """One cell as markdown; hidden cells vanish."""
    if cell.cell_type == "markdown":
        return LINK.sub(lambda link: f"]({normpath(f'nbs/{link[1]}')})", cell.source)
    if cell.cell_type != "code" or cell.source.startswith("#| hide"):
        return ""
    shown = [line for line in cell.source.splitlines() if not line.startswith("#|")]
    parts = ["\n".join(["```python", *shown, "```"]), *map(output_text, cell.outputs)]
    return "\n\n".join(filter(None, parts))


def readme():
    """The text of README.md."""
    cells = nbformat.read(ROOT / "nbs/index.ipynb", 4).cells
    return "\n\n".join(filter(None, [HEAD, *map(cell_text, cells)])) + "\n"


if __name__ == "__main__":
    path = ROOT / "README.md"
    if "--check" in sys.argv:
        is_same = path.read_text(encoding="utf8") == readme()
        sys.exit(None if is_same else "README.md differs: run python scripts/readme.py")
    path.write_text(readme(), encoding="utf8")
