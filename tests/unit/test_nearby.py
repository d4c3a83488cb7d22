import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import DataError
from tastemaker.features.places import EARTH_KM, Place, Places, chord_of, km_of, place_of
from tastemaker.stages.nearby import NearbyConfig, NearbySource, PlaceTree
from tastemaker.types import Query

NOTHING = np.empty(0, np.int32)


def table(degrees: list[tuple[float, float] | None]) -> pa.Table:
    lat = [None if place is None else place[0] for place in degrees]
    lon = [None if place is None else place[1] for place in degrees]
    return pa.table({"latitude": pa.array(lat, pa.float64()), "longitude": pa.array(lon, pa.float64())})


def haversine_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    """The usual formula, which nothing here is made by."""
    (lat_a, lon_a), (lat_b, lon_b) = np.radians(a), np.radians(b)
    inner = (
        np.sin((lat_b - lat_a) / 2) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_b - lon_a) / 2) ** 2
    )
    return float(2 * EARTH_KM * np.arcsin(np.sqrt(inner)))


degrees = st.tuples(st.floats(-90, 90), st.floats(-180, 180))
near_berlin = st.tuples(st.floats(52, 53), st.floats(13, 14))


@given(degrees, degrees)
@settings(deadline=None)
def test_distances_are_the_haversine_formulas(here: tuple[float, float], there: tuple[float, float]) -> None:
    found = Places.from_items(table([there])).distance_km(Place(*here), np.array([0], np.int32))[0]
    assert found == pytest.approx(haversine_km(here, there), rel=1e-6, abs=1e-3)


@given(st.floats(0, np.pi * EARTH_KM))
@settings(deadline=None)
def test_chords_are_undone(km: float) -> None:
    assert float(km_of(np.array(chord_of(km)))) == pytest.approx(km, rel=1e-6, abs=1e-3)


@given(
    st.lists(st.none() | near_berlin | degrees, min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 33), st.none() | near_berlin), max_size=6, unique_by=lambda w: w[0]),
    st.lists(st.integers(0, 29), max_size=8),
    st.booleans(),
    st.integers(1, 12),
    st.integers(0, 2**30),
)
@settings(max_examples=150, deadline=None)
def test_the_nearest_that_the_rules_allow_as_places_are_now(
    first: list[tuple[float, float] | None],
    later: list[tuple[int, tuple[float, float] | None]],
    exclude: list[int],
    is_masked: bool,
    k: int,
    seed: int,
) -> None:
    published, now = Places.from_items(table(first)), dict(enumerate(first))
    rows = sorted({min(row, len(first) + n) for n, (row, _) in enumerate(sorted(later))})
    places = published.after(np.array(rows, np.int32), table([place for _, place in later][: len(rows)]))
    now |= dict(zip(rows, [place for _, place in later], strict=False))
    allowed = np.random.default_rng(seed).random(len(places)) < 0.5 if is_masked else None
    exclude = [row for row in exclude if row < len(places)]
    query = Query(
        NOTHING, k, context={"location": "52.5,13.4"}, exclude=np.array(exclude, np.int32), allowed=allowed
    )
    source = NearbySource("nearby", places, PlaceTree(published), NearbyConfig(max_km=50))
    km = {row: haversine_km((52.5, 13.4), place) for row, place in now.items() if place is not None}
    expected = sorted(
        away
        for row, away in km.items()
        if away <= 50 and row not in exclude and (allowed is None or allowed[row])
    )[:k]
    found, scores = (array[0] for array in source.propose([query], k))
    real = found[found >= 0].tolist()
    assert len(real) == len(expected)
    assert [km[row] for row in real] == pytest.approx(expected, rel=1e-6, abs=1e-3)
    assert np.expm1(-scores[: len(real)]).tolist() == pytest.approx(expected, rel=1e-3, abs=1e-2)


def test_it_has_nothing_to_say_of_nowhere() -> None:
    places = Places.from_items(table([(52.5, 13.4), None]))
    source = NearbySource("nearby", places, PlaceTree(places))
    nowhere, berlin = Query(NOTHING), Query(NOTHING, context={"location": "52.5,13.4"})
    assert source.propose([nowhere, berlin], 2)[0].tolist() == [[-1, -1], [0, -1]]
    both = np.array([0, 1], np.int32)
    silent, said = source.score([nowhere, berlin], [both, both])
    assert np.isnan(silent).all()
    assert said[0] == pytest.approx(0, abs=1e-3)
    assert np.isnan(said[1])


@pytest.mark.parametrize("text", ["", "52.5", "north,south", "91,0", "0,181", "nan,0", "1,2,3", "inf,0"])
def test_no_place_on_earth_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="must be degrees north and east"):
        place_of({"location": text})
