"""How honest experiments are, on simulated worlds whose truth is known: `make bench-experiments`.

    aa     A/A experiments that are looked at after every 100 users, visitors returning: false positives
    power  effects found by watching and by one look, at the planned sizes
    cuped  variance that a pre-period removes, beside 1 - rho^2
    srm    wrong splits found at a million users, false alarms under fixed splits, ramps and bandits
    drawn  A/A experiments that a bandit drives: plain, weighted and adaptively weighted estimates
    interleaving  lists that a team draft takes to find a better ranker, beside a split of the same people
    regret each bandit policy in stationary, drifting and delayed worlds, beside vowpalwabbit and obp
    regret-many  the delayed world alone on ten times as many seeds, beside obp
    router decisions a second, and whether 16 routers and one joiner lose a reward
    offpolicy  estimates beside published ones and obp's, their speed, and how often intervals hold the truth
    memory what a report takes as the log grows

Each part is kept in benchmarks/out/experiments-PART.json when it is done, and docs/results/DATE-experiments.md is made of all that are kept.
`--only aa` runs one part, `--quick` takes few simulations.
"""

from typing import Final

import kept

PARTS: Final = {
    "aa": "experiments_aa:false_positives",
    "power": "experiments_aa:power",
    "cuped": "experiments_cuped:variance",
    "srm": "experiments_srm:mismatch",
    "drawn": "experiments_srm:drawn",
    "interleaving": "experiments_interleaving:interleaving",
    "regret": "bandits:regret",
    "regret-many": "bandits:regret_many",
    "router": "bandits_router:router",
    "offpolicy": "offpolicy:offpolicy",
    "memory": "experiments_memory:memory",
}
"""Part by part, in the page's order: module and function that measure it."""
_INTRO: Final = (
    "`make bench-experiments`, part by part, on simulated worlds whose truth is known. Shares have ± two standard errors; times are medians over "
    "turns [least, most], contenders take turns, and ratios are those of one turn."
)

if __name__ == "__main__":
    kept.main("experiments", "Experiments", _INTRO, __doc__ or "", PARTS, list(PARTS), kept.by_turns())
