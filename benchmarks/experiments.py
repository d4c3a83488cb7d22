"""How honest experiments are, on simulated worlds whose truth is known: `make bench-experiments`.

    aa     A/A experiments that are looked at after every 100 users, visitors returning: false positives
    power  effects found by watching and by one look, at the planned sizes
    cuped  variance that a pre-period removes, beside 1 - rho^2
    srm    wrong splits found at a million users, false alarms under fixed splits, ramps and bandits
    drawn  A/A experiments that a bandit drives: plain, weighted and adaptively weighted estimates
    regret each bandit policy in stationary, drifting and delayed worlds, beside vowpalwabbit and obp
    interleaving  lists that a team draft takes to find a better ranker, beside a split of the same people
    memory what a report takes as the log grows
    router decisions a second, and whether 16 routers and one joiner lose a reward
    offpolicy  estimates beside published ones and obp's, their speed, and how often intervals hold the truth

Writes benchmarks/out/experiments.json and, of a whole run, docs/results/DATE-experiments.md. `--only aa` runs one part,
`--quick` takes few simulations.
"""

import bandits
import experiments_aa
import experiments_cuped
import experiments_interleaving
import experiments_memory
import experiments_srm
import offpolicy
import report

if __name__ == "__main__":
    parts = experiments_aa.PARTS | experiments_cuped.PARTS | experiments_srm.PARTS
    parts |= experiments_interleaving.PARTS | bandits.PARTS | offpolicy.PARTS | experiments_memory.PARTS
    report.main("experiments", "Experiments", str(__doc__), parts)
