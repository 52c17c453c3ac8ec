"""Execute notebooks in place, each in a fresh kernel: all of nbs/ but jobs/ and bench/, or those named."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
books = [Path(a) for a in sys.argv[1:]] or sorted(
    p
    for p in (ROOT / "nbs").rglob("*.ipynb")
    if not {"jobs", "bench", ".ipynb_checkpoints"} & set(p.parts)
)
for book in books:
    print(book.relative_to(ROOT) if book.is_absolute() else book, flush=True)
    subprocess.run(["jupyter", "execute", "--inplace", "--timeout=1800", str(book)], check=True)
