"""obp's and vowpalwabbit's policies in the worlds of `bandits_worlds`: run by the Python of an environment that holds both.

`python bandits_peers.py KIND,KIND,… SEED,SEED,… ROUNDS [WHOSE]` prints the regret of each policy (whose name begins so) by world and seed, as JSON. What a policy is set to is what its
own documentation uses, and where that leaves a choice, the best of what was tried in these worlds.
"""

import json
import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from bandits_worlds import NUM_ARMS, Array, World, known_until, make


class Player(Protocol):
    """A policy of somebody else's behind one face."""

    def choose(self, context_D: Array, /) -> int: ...

    def learn(self, context_D: Array, arm: int, reward: float, round_: int, /) -> None: ...


class Obp:
    """A policy of obp without context, or with (`Linear`)."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def choose(self, _context_D: Array) -> int:
        return int(self._policy.select_action()[0])

    def learn(self, _context_D: Array, arm: int, reward: float, _round: int) -> None:
        self._policy.update_params(action=arm, reward=reward)


class Linear(Obp):
    def choose(self, context_D: Array) -> int:
        return int(self._policy.select_action(context_D[None])[0])

    def learn(self, context_D: Array, arm: int, reward: float, _round: int) -> None:
        self._policy.update_params(action=arm, reward=reward, context=context_D[None])


class VowpalWabbit:
    """Contextual bandits of vowpalwabbit; costs are rewards negated, arms and context are crossed."""

    def __init__(self, options: str, seed: int) -> None:
        from vowpalwabbit import Workspace

        self._workspace = Workspace(f"--cb_explore_adf {options} -q sa --random_seed {seed + 1} --quiet")
        self._generator = np.random.default_rng(seed)
        self._chances: dict[int, float] = {}
        self._round = 0

    def choose(self, context_D: Array) -> int:
        chances = np.asarray(self._workspace.predict(_lines(context_D)), float)
        arm = int(self._generator.choice(NUM_ARMS, p=chances / chances.sum()))
        self._chances[self._round] = float(chances[arm])
        self._round += 1
        return arm

    def learn(self, context_D: Array, arm: int, reward: float, round_: int) -> None:
        self._workspace.learn(_lines(context_D, arm, -reward, self._chances.pop(round_)))


def _lines(context_D: Array, arm: int = -1, cost: float = 0.0, chance: float = 1.0) -> list[str]:
    shared = "shared |s " + " ".join(f"f{place}" for place in np.flatnonzero(context_D))
    return [
        shared,
        *(f"{f'0:{cost}:{chance} ' if n == arm else ''}|a arm{n}" for n in range(NUM_ARMS)),
    ]


def play(player: Player, world: World) -> float:
    """The player's regret."""
    num_rounds, known = len(world.rate_TA), 0
    arm_T = np.zeros(num_rounds, np.int64)
    for round_ in range(num_rounds):
        until = known_until(world, round_)
        for past in range(known, until):
            arm = int(arm_T[past])
            player.learn(world.context_TD[past], arm, float(world.reward_TA[past, arm]), past)
        known = max(known, until)
        arm_T[round_] = player.choose(world.context_TD[round_])
    return world.regret(arm_T)


def players(kind: str, dimension: int, seed: int) -> dict[str, Callable[[], Player]]:
    """Those that the world is for."""
    from obp import policy

    def setting(**more: Any) -> dict[str, Any]:
        return {"n_actions": NUM_ARMS, "random_state": seed} | more

    own: dict[str, Callable[[], Player]] = {
        "vw bag 5": lambda: VowpalWabbit("--bag 5", seed),
        "vw squarecb": lambda: VowpalWabbit("--squarecb", seed),
    }
    if kind.endswith("-context"):
        return own | {
            "obp LinUCB": lambda: Linear(policy.LinUCB(**setting(dim=dimension, epsilon=0.2))),
            "obp LinTS": lambda: Linear(policy.LinTS(**setting(dim=dimension))),
        }
    return own | {
        "obp EpsilonGreedy .05": lambda: Obp(policy.EpsilonGreedy(**setting(epsilon=0.05))),
        "obp BernoulliTS": lambda: Obp(policy.BernoulliTS(**setting())),
    }


def main(kinds: str, seeds: str, num_rounds: str, whose: str = "") -> None:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for kind in kinds.split(","):
        of_kind = found.setdefault(kind, {})
        for seed in map(int, seeds.split(",")):
            world = make(kind, seed, int(num_rounds))
            for name, player in players(kind, world.context_TD.shape[1], seed).items():
                if name.startswith(whose):
                    of_kind.setdefault(name, {})[str(seed)] = play(player(), world)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
