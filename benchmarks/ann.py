"""Recall, time and memory of every kind of index, from 10k to 10M items: `make bench-ann`.

    trained      10k, 100k and 1M vectors of a trained model
    hard         the same of unclustered ones
    trained-10m  10M of the former
    hard-10m     10M of the latter
    rules        what hard rules cost at the million, and what is found under them
    shards       one shard's time and memory beside the whole's, and merging
    loading      opening a bundle and reading its index

Parts of 10M items are measured with FULL=1, or where `--only` names them. Times are of one thread and one query at a time, of its CPU and
by the clock: run it on an idle machine, where both agree. Each part is kept in benchmarks/out/ann-PART.json; of all that are kept the page
docs/results/DATE-ann.md is made, and benchmarks/out/ann.html with the curves.
"""

from collections.abc import Mapping
from typing import Any, Final

import kept
from ann_curves import WANTED, groups
from report import OUT

from tastemaker.index.tuning_page import render

PARTS: Final = {
    "trained": "ann_curves:on_trained",
    "hard": "ann_curves:on_hard",
    "trained-10m": "ann_curves:on_ten_million_trained",
    "hard-10m": "ann_curves:on_ten_million_hard",
    "rules": "ann_costs:rules",
    "shards": "ann_costs:shards",
    "loading": "ann_costs:loading",
}
"""Part by part, in the page's order: module and function that measure it."""
_INTRO: Final = "`make bench-ann`, part by part; one thread, one query at a time."


def draw(whole: Mapping[str, Any]) -> None:
    """The curves of all parts that are kept."""
    trials, chosen = groups(whole)
    page = render("Recall of each kind of index against time and memory", trials, WANTED, chosen)
    (OUT / "ann.html").write_text(page)


if __name__ == "__main__":
    asked = [part for part in PARTS if kept.full() or not part.endswith("-10m")]
    if whole := kept.main("ann", "Vector search", _INTRO, str(__doc__), PARTS, asked):
        draw(whole)
