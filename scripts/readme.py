"""README.md from nbs/index.ipynb: prose as it is, code in fences, text outputs indented. `--check` only compares."""

import re
import sys
from os.path import normpath
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]


def cell_text(cell):
    "One cell as markdown; hidden cells vanish."
    if cell.cell_type == "markdown":
        return re.sub(
            r"\]\((?!http|#)([^)]+)\)", lambda m: f"]({normpath('nbs/' + m[1])})", cell.source
        )  # links are relative to nbs/
    hidden = cell.source.startswith(("#| hide", "#|hide"))
    if cell.cell_type != "code" or hidden:
        return ""
    shown = "\n".join(l for l in cell.source.splitlines() if not l.startswith("#|"))
    parts = (
        [f"```python\n{shown}\n```"]
        if shown and not cell.source.startswith("#| echo: false")
        else []
    )
    for o in cell.outputs:
        data = o.get("data", {})
        if "text/markdown" in data:
            parts.append(data["text/markdown"])
        elif "text/plain" in data or "text" in o:
            text = data.get("text/plain", o.get("text", "")).rstrip()
            parts.append("\n".join("    " + l for l in text.splitlines()))
    return "\n\n".join(parts)


def readme():
    "The text of README.md."
    cells = nbformat.read(ROOT / "nbs/index.ipynb", 4).cells
    head = "<!-- made from nbs/index.ipynb by scripts/readme.py: edit the notebook -->"
    return "\n\n".join([head] + [t for t in map(cell_text, cells) if t]) + "\n"


if __name__ == "__main__":
    path = ROOT / "README.md"
    if "--check" in sys.argv:
        sys.exit(
            path.read_text(encoding="utf8") != readme()
            and "README.md is not in step: run python scripts/readme.py"
        )
    path.write_text(readme(), encoding="utf8")
