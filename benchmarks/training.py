"""Training's numbers, measured side by side in one run, beside their targets: `make bench-training`.

    plain       the sharded job against DDP on the same DLRM: samples a second
    memory      the same jobs with tables ten times as large: peak memory of a rank
    ranks       one and two ranks on the same two cores: what distribution costs, and where it goes
    tables      a step as the tables grow
    rows        peak memory of a rank as the data grow
    checkpoint  how long a save holds training up
    input       rows a second from Parquet to the step, beside a bare scan

Contenders take turns (A B A B), each job in processes of its own. Every figure is the median over the turns [least,
most]; ratios are those of one turn. Writes benchmarks/out/training.json and, of a whole run, docs/results/DATE-training.md.
`--only plain,ranks` runs some parts, `--quick` small ones, FULL=1 takes three times as many turns.
"""

import report
from training_parts import PARTS
from training_ranks import reruns

if __name__ == "__main__":
    report.main("training", "Distributed training", str(__doc__), PARTS, reruns)
