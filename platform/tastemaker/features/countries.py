"""Where events happen: what an item weighs in each country, counted as the items' counters are, by partition.

A record is one of `counters` with the row `weight` alone, named by country and item. So an item costs memory for each
country (and each partition of that country's users) in which somebody took it, and nothing for impressions.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.events.schema import Event
from tastemaker.features.counters import WEIGHT, Counters, event_weight, row_of

CONTEXT_COUNTRY: Final = "country"
"""Key of an event's and of a request's context."""
_CODES: Final = """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
    CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR
    GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO
    JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR
    MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO
    RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV
    TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
COUNTRIES: Final = frozenset(_CODES.split())
"""The codes of ISO 3166-1, of two letters."""
_CODE_LENGTH: Final = 2


def country_of(context: Mapping[str, str] | None) -> str:
    """The country that a context names, in capitals; empty where it names none that there is.

    >>> country_of({"country": "de"}), country_of({"country": "Utopia"}), country_of(None)
    ('DE', '', '')
    """
    code = (context or {}).get(CONTEXT_COUNTRY, "")
    return code.upper() if len(code) == _CODE_LENGTH and code.upper() in COUNTRIES else ""


def countries_of(context_E: "pa.ChunkedArray[Any]") -> "pa.Array[Any]":
    """`country_of` of a column of archived contexts; null where there is none."""
    named: Any = pc.map_lookup(context_E, query_key=pa.scalar(CONTEXT_COUNTRY), occurrence="first")
    codes = named.combine_chunks().dictionary_encode()
    known = [country_of({CONTEXT_COUNTRY: name or ""}) or None for name in codes.dictionary.to_pylist()]
    return pa.array(known, pa.string()).take(codes.indices)


def local_id(country: str, item_id: str) -> str:
    """Names an item in a country; `split_id` takes it apart.

    >>> local_id("DE", "film:7")
    'DE:film:7'
    """
    return f"{country}:{item_id}"


def split_id(name: str) -> tuple[str, str]:
    """Country and item of a `local_id`.

    >>> split_id("DE:film:7")
    ('DE', 'film:7')
    """
    return name[:_CODE_LENGTH], name[_CODE_LENGTH + 1 :]


def local_name(event: Event) -> str:
    """The `local_id` that an event weighs something for; empty where it weighs nothing, or nobody knows where it was."""
    country = country_of(event.context)
    weighs = country and event_weight(event.kind, event.value) > 0
    return local_id(country, event.item_id) if weighs else ""


def count_weights(counters: Counters, events: Sequence[tuple[int, Event]]) -> Counters:
    """Counters after the weights of some events, each beside the record that counts it."""
    return counters.plus(
        np.array([n for n, _ in events], np.int64),
        np.full(len(events), row_of(WEIGHT)),
        np.array([event_weight(event.kind, event.value) for _, event in events], np.float64),
        np.array([event.timestamp_ms for _, event in events], np.int64),
    )
