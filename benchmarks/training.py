"""Training's numbers, measured side by side, beside their targets: `make bench-training`.

    plain       the sharded job against DDP on the same DLRM: samples a second
    memory      the same jobs with tables ten times as large: peak memory of a rank
    ranks       one and two ranks on the same two cores: what distribution costs, and where it goes
    tables      a step as the tables grow
    rows        peak memory of a rank as the data grow
    checkpoint  how long a save holds training up
    input       rows a second from Parquet to the step, beside a bare scan

Contenders take turns (A B A B), each job in processes of its own. Each part is kept in benchmarks/out/training-PART.json, and
docs/results/DATE-training.md is made of all that are kept. `--only plain,ranks` measures some parts, `--quick` takes small tables and one
turn. Five turns of `plain` and `ranks`, of the others two or three; FULL=1 takes 15 of `plain` and `ranks`, and
17 saves in place of 7.
"""

from typing import Final

import kept

PARTS: Final = {
    "plain": "training_parts:against_plain",
    "memory": "training_parts:memory",
    "ranks": "training_parts:ranks",
    "tables": "training_parts:tables",
    "rows": "training_parts:rows",
    "checkpoint": "training_parts:checkpoint",
    "input": "training_parts:input_path",
}
"""Part by part, in the page's order: module and function that measure it."""
_INTRO: Final = f"`make bench-training`, part by part; each job in processes of its own. {kept.BY_TURNS}"

if __name__ == "__main__":
    kept.main("training", "Distributed training", _INTRO, str(__doc__), PARTS, list(PARTS), kept.by_turns())
