"""What each variant is truly worth to a world's visitors, over the requests that a simulator made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tastemaker.data.simulator import Served, Trace
from tastemaker.data.world_process import WorldProcess
from tastemaker.errors import ServingError

Replay = Callable[[str, Sequence[Sequence[str]]], Sequence[Sequence[str]]]
"""Gives, for a variant and sessions, the slate of item ids that the variant has for each session."""


@dataclass(frozen=True, slots=True)
class ExactLift:
    """The world's truth about an experiment.

    `rates` are expected clicks per request by variant, over all requests of the run, whoever served them;
    `lift` is the second variant's rate over the first's, minus 1; `parity` is the share of the `num_checked` served
    slates that equal the replay of the bundle that served them (0 where none was checked).
    """

    rates: dict[str, float]
    lift: float
    parity: float
    num_checked: int


def exact_lift(
    trace: Trace, replay: Replay, world: WorldProcess, bundles: Mapping[str, str], num_checked: int = 200
) -> ExactLift:
    """What each variant is truly worth, over all requests of the trace (see `ExactLift`).

    A slate that the variant's own bundle served, no stage skipped, is taken as it was; the others are replayed, and so
    are the first `num_checked` of those taken, for the parity.

    Args:
        trace: Of one experiment. Requests that were served outside it count in the rates, not in the parity.
        replay: See `Replay`.
        world: Whose visitors the trace has.
        bundles: What answers by variant; control first, then the variant that the lift is of.
        num_checked: Slates of each bundle to replay though they were served.

    Raises:
        ServingError: The trace is empty.
    """
    if not trace.served:
        raise ServingError("no request was served", mend="see the gateway's log")
    rates: dict[str, float] = {}
    equal: dict[str, list[bool]] = {}
    for variant, bundle in bundles.items():
        if bundle not in rates:
            slates, equal[bundle] = _slates(trace.served, variant, replay, bundles, num_checked)
            asked = [(one.visitor_id, slate) for one, slate in zip(trace.served, slates, strict=True)]
            rates[bundle] = sum(world.expected(asked)) / len(asked)
    control, other = (rates[bundle] for bundle in list(bundles.values())[:2])
    checked = [same for of_bundle in equal.values() for same in of_bundle]
    parity = sum(checked) / len(checked) if checked else 0.0
    by_variant = {variant: rates[bundle] for variant, bundle in bundles.items()}
    return ExactLift(by_variant, other / control - 1, parity, len(checked))


def _slates(
    served: Sequence[Served], variant: str, replay: Replay, bundles: Mapping[str, str], num_checked: int
) -> tuple[list[list[str]], list[bool]]:
    """The slate of a variant's bundle for each request, and whether those checked equal their replay."""
    own = [bundles.get(one.variant or "") == bundles[variant] and not one.degraded for one in served]
    checked = [i for i, mine in enumerate(own) if mine][:num_checked]
    asked = [i for i, mine in enumerate(own) if not mine] + checked
    replayed = dict(zip(asked, replay(variant, [served[i].session for i in asked]), strict=True))
    slates = [one.slate if own[i] else list(replayed[i]) for i, one in enumerate(served)]
    return slates, [served[i].slate == list(replayed[i]) for i in checked]
