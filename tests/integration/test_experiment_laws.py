"""Whatever is done to the experiments of a layer, and in whatever order: no unit is in two, none flips that nobody asked to flip."""

import itertools
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tastemaker.errors import ExperimentError
from tastemaker.experiments.assignment import assign_fixed
from tastemaker.experiments.definition import Experiment, Fixed, Variant
from tastemaker.experiments.eligibility import Subject
from tastemaker.experiments.layers import SLOTS, overlap, size
from tastemaker.experiments.router import takes_part
from tastemaker.experiments.store import ExperimentStore
from tastemaker.state.keys import Keys

NAMES = ("a", "b")
SHARES = st.sampled_from([0.2, 0.4, 0.6, 1.0])
SUBJECTS = [Subject(f"u{n}") for n in range(40)]
STEPS = st.tuples(
    st.sampled_from(["start", "stop", "ramp", "edit", "weigh", "reassign"]), st.sampled_from(NAMES), SHARES
)
_catalogues = itertools.count()


def experiment(name: str, traffic: float, share: float = 0.5, hypothesis: str = "h") -> Experiment:
    arms = (Variant(name="x", alias="champion"), Variant(name="y", alias="challenger"))
    weights = Fixed(weights=(share, 1 - share))
    return Experiment(
        name=name,
        hypothesis=hypothesis,
        salt="s",
        variants=arms,
        allocation=weights,
        traffic=traffic,
        state="draft",
    )


def do(store: ExperimentStore, step: tuple[str, str, float]) -> bool:
    """One step, as a user would; whether units may flip by it. A step that is refused changes nothing."""
    kind, name, share = step
    match kind:
        case "start":
            store.start(name)
        case "stop":
            store.stop(name)
        case "ramp":
            store.ramp(name, traffic=share)
        case "edit":
            store.edit(experiment(name, share, hypothesis=kind + str(share)))
        case "weigh":
            store.ramp(name, weights=[share / 2, 1 - share / 2])
        case "reassign":
            store.edit(experiment(name, share, share / 2), reassign=True)
            return True
    return False


def got(running: list[Experiment]) -> dict[tuple[str, str], str]:
    """(user, experiment) -> variant."""
    return {
        (subject.user_id, one.name): assign_fixed(one, unit).variant
        for one in running
        for subject in SUBJECTS
        if (unit := takes_part(one, subject, 0)) is not None
    }


@given(st.lists(STEPS, min_size=6, max_size=14))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_order_of_changes_shares_or_flips_a_unit(state: Any, steps: list[tuple[str, str, float]]) -> None:
    store = ExperimentStore(state.client, Keys(f"laws-{next(_catalogues)}", 1))
    for name in NAMES:
        store.create(experiment(name, 0.2))
    seen: dict[tuple[str, str], str] = {}
    for step in steps:
        before = store.list()
        try:
            flips = do(store, step)
        except ExperimentError:
            assert store.list() == before
            continue
        running = [one for one in store.list() if one.state == "running"]
        assert sum(size(one.ranges) for one in running) <= SLOTS
        assert not any(overlap(a.ranges, b.ranges) for a, b in itertools.combinations(running, 2))
        now = got(running)
        assert len({user for user, _ in now}) == len(now)  # nobody is in two
        if flips:
            seen = {place: variant for place, variant in seen.items() if place[1] != step[1]}
        running_names = {one.name for one in running}
        for place, variant in seen.items():  # also of one that was stopped in between
            if place[1] in running_names:
                assert now.get(place) == variant, f"{place} after {step}"
        seen |= now
