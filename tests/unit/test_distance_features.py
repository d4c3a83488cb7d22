"""How far an item is from where a request comes from, online and in training."""

import numpy as np
import pyarrow as pa
import pytest

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.events.archive import EVENT_SCHEMA
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.features.known_records import KnownRecords
from tastemaker.features.places import Place
from tastemaker.features.request_features import DISTANCE, GROUPS, REQUEST_FEATURES, chosen
from tastemaker.features.served_features import ServedFeatures
from tastemaker.types import Query

ALL = np.arange(3, dtype=np.int32)
NOWHERE = np.empty(0, np.int32)
BERLIN, PARIS = Place(52.52, 13.4), (48.86, 2.35)
LOG_KM = np.log1p(877.6)  # between them, by the haversine formula on a sphere of 6371 km


def items(*places: tuple[float, float] | None) -> pa.Table:
    plain = [
        {"item_id": f"i{n}", "title": "", "category": None, "tags": [], "created_at_ms": None}
        for n, _ in enumerate(places)
    ]
    table = pa.Table.from_pylist(plain, ITEMS_SCHEMA)
    lat, lon = ([None if place is None else place[axis] for place in places] for axis in (0, 1))
    return table.append_column("latitude", pa.array(lat, pa.float64())).append_column(
        "longitude", pa.array(lon, pa.float64())
    )


FACTS = ItemFacts.from_items(items(PARIS, None, (BERLIN.lat, BERLIN.lon)))


def distances(value_KF: np.ndarray) -> list[list[float]]:
    columns = [REQUEST_FEATURES.index(name) for name in DISTANCE]
    return [[round(float(value), 2) for value in row] for row in value_KF[:, columns]]


@pytest.mark.parametrize("where", ["in the request", "at home", "both"])
def test_online_and_offline_are_alike(where: str) -> None:
    context = {} if where == "at home" else {"location": BERLIN.text()}
    homes = {} if where == "in the request" else {"ann": BERLIN if where == "at home" else Place(0.0, 0.0)}
    query = Query(NOWHERE, user_id="ann", now_ms=1, context=context)
    nothing = EVENT_SCHEMA.empty_table()
    offline = KnownRecords(nothing, np.empty(0, np.int64), FACTS, homes)(query, ALL)
    served = Query(NOWHERE, user_id="ann", now_ms=1, context=context or {"location": BERLIN.text()})
    online = ServedFeatures(ItemStore(FACTS))(served, ALL)
    np.testing.assert_array_equal(online, offline)
    assert distances(online) == [[pytest.approx(LOG_KM, abs=0.01), 1], [0, 0], [0, 1]]


def test_unknown_is_0_and_says_so() -> None:
    found = ServedFeatures(ItemStore(FACTS))(Query(NOWHERE, now_ms=1), ALL)
    assert distances(found) == [[0, 0]] * 3


def test_an_item_that_was_put_elsewhere_is_there_now() -> None:
    moved = FACTS.with_items(np.array([1, 3], np.int32), items((BERLIN.lat, BERLIN.lon), PARIS))
    query = Query(NOWHERE, now_ms=1, context={"location": BERLIN.text()})
    found = ServedFeatures(ItemStore(moved))(query, np.arange(4, dtype=np.int32))
    assert [known for _, known in distances(found)] == [1, 1, 1, 1]
    assert distances(found)[1] == [0, 1]


def test_it_is_a_group_of_its_own_beside_the_crosses() -> None:
    assert chosen(["distance"]) == DISTANCE
    assert not {*DISTANCE} & {*GROUPS["cross"]}
    assert chosen(["all"]) == REQUEST_FEATURES
