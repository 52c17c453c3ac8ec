"""Print the markdown and text outputs of an executed notebook."""

import sys

import nbformat

for cell in nbformat.read(sys.argv[1], 4).cells:
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        text = data.get("text/markdown") or data.get("text/plain") or output.get("text", "")
        print(text, end="\n\n")
