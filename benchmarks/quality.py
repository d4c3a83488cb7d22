"""Offline quality of the packaged recipe over three seeds, beside its targets: `make bench-quality`.

Each seed trains in a home of its own, by the commands that a user types, and the table of each is read back. Kept in
benchmarks/out/quality-recipe.json; the page is docs/results/DATE-quality.md. `--quick` takes one seed and a small training.
"""

from typing import Final

import kept

PARTS: Final = {"recipe": "quality_recipe:recipe"}

if __name__ == "__main__":
    kept.main("quality", "Offline quality", "`make bench-quality`.", str(__doc__), PARTS, list(PARTS))
