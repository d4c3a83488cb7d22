"""What reranking costs and gains, and how fast it is: `make bench-reranking`.

    quality  each stage on and off on the packaged recipe's test users: NDCG@10 beside variety, mix, novelty and coverage
    speed    MMR and DPP over 500 x 64 to 50 beside plain loops that choose the same items; the whole stage over 500

Costs and gains are means over users with 95% intervals of the differences, users drawn in pairs [Efron 1979]. The recipe is
trained by three seeds in a home of its own; RERANKING_HOME names one where they lie already (runs reranking-0 to -2). Writes
benchmarks/out/reranking.json and, of a whole run, docs/results/DATE-reranking.md. `--only speed` runs one part, `--quick`
takes few turns and a small recipe.
"""

import report
import reranking_quality
import reranking_speed

if __name__ == "__main__":
    parts = reranking_quality.PARTS | reranking_speed.PARTS
    report.main("reranking", "Reranking", str(__doc__), parts)
