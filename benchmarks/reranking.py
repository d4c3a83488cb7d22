"""What reranking costs and gains, and how fast it is: `make bench-reranking`.

    quality  each stage on and off on the packaged recipe's test users: NDCG@10 beside variety, mix, novelty and coverage
    speed    MMR and DPP over 500 x 64 to 50 beside plain loops that choose the same items; the whole stage over 500

Costs and gains are means over users with 95% intervals of the differences, users drawn in pairs [Efron 1979]. The recipe is
trained by three seeds in a home of its own; RERANKING_HOME names one where they lie already (runs reranking-0 to -2). Each part
is kept in benchmarks/out/reranking-PART.json, and docs/results/DATE-reranking.md is made of both. `--only speed` measures one, `--quick`
takes one turn and a small recipe, FULL=1 15 turns of `speed` in place of 5.
"""

from typing import Final

import kept

PARTS: Final = {"quality": "reranking_quality:measure_quality", "speed": "reranking_speed:measure_speed"}
_INTRO: Final = f"`make bench-reranking`, part by part. {kept.BY_TURNS}"

if __name__ == "__main__":
    kept.main("reranking", "Reranking", _INTRO, str(__doc__), PARTS, list(PARTS), kept.by_turns())
