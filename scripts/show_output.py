"""Print the markdown and text outputs of an executed notebook."""

import sys

import nbformat

for cell in nbformat.read(sys.argv[1], 4).cells:
    for o in cell.get("outputs", []):
        data = o.get("data", {})
        print(data.get("text/markdown") or data.get("text/plain") or o.get("text", ""), end="\n\n")
