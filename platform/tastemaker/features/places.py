"""Where items are, and how far that is from where a request comes from. Not for regions, in which an item may be shown.

Shape letters: I catalogue, K candidates, W rows that are written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
import pyarrow as pa

from tastemaker.data.schema import Column
from tastemaker.errors import DataError
from tastemaker.features.rows import placed
from tastemaker.types import Float64, Int32

EARTH_KM: Final = 6371.0
"""Mean radius."""
CONTEXT_LOCATION: Final = "location"
"""Key of a request's context: degrees north and east, as in `52.52,13.41`."""
_MAX_LAT, _MAX_LON = 90.0, 180.0


class Place(NamedTuple):
    """A place on earth, in degrees."""

    lat: float
    lon: float

    def coarse(self) -> Self:
        """The place to about a kilometre: nearer is nobody's business."""
        return type(self)(round(self.lat, 2), round(self.lon, 2))

    def text(self) -> str:
        """As a context says it.

        >>> Place(52.516275, 13.377704).coarse().text()
        '52.52,13.38'
        """
        return f"{self.lat},{self.lon}"


def place_of(context: Mapping[str, str]) -> Place | None:
    """Where a request comes from; None where its context does not say.

    >>> place_of({"location": "52.52, 13.41"}), place_of({})
    (Place(lat=52.52, lon=13.41), None)

    Raises:
        DataError: What it says is no place on earth.
    """
    text = context.get(CONTEXT_LOCATION)
    if text is None:
        return None
    try:
        lat, lon = (float(part) for part in text.split(","))
        if not (abs(lat) <= _MAX_LAT and abs(lon) <= _MAX_LON):
            raise ValueError("beyond the poles or the date line")
    except ValueError as error:
        raise DataError(
            CONTEXT_LOCATION, value=text[:60], limit="degrees north and east, like 52.52,13.41",
            mend="correct it, or leave it out",
        ) from error  # fmt: skip
    return Place(lat, lon)


def unit_vector(lat: Any, lon: Any) -> Float64:
    """Points on the unit sphere (…, 3) of degrees north and east.

    >>> unit_vector(0.0, 90.0).round(3).tolist()
    [0.0, 1.0, 0.0]
    """
    lat, lon = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def chord_of(km: float) -> float:
    """The straight line between points of the unit sphere that are so far apart along the ground.

    >>> round(chord_of(np.pi * EARTH_KM), 6)  # half around the earth
    2.0
    """
    return float(2 * np.sin(min(km / (2 * EARTH_KM), np.pi / 2)))


def km_of(chord: Float64) -> Float64:
    """What `chord_of` makes straight, along the ground again."""
    away: Float64 = 2 * EARTH_KM * np.arcsin(np.minimum(chord / 2, 1))
    return away


@dataclass(frozen=True)
class Places:
    """Where the items of a catalogue are: points of the unit sphere (I, 3), NaN where unknown. Immutable.

    `written` are the rows, ascending, that were put since the first of these was made, among all their steps.
    """

    point_I3: Float64
    written: Int32

    @classmethod
    def from_items(cls, items: pa.Table) -> Self:
        """Those of a table with the schema of imported items: row i is item i."""
        return cls(_points(items), np.empty(0, np.int32))

    @classmethod
    def unknown(cls, num_items: int) -> Self:
        """Of items of which nobody knows where they are."""
        return cls(np.full((num_items, 3), np.nan), np.empty(0, np.int32))

    def after(self, rows_W: Int32, items: pa.Table) -> Self:
        """The places with others at `rows_W`, ascending: in place of some, or next behind the last."""
        if not len(rows_W):
            return self
        written = np.union1d(self.written, rows_W).astype(np.int32)
        return type(self)(placed(self.point_I3, rows_W, _points(items)), written)

    def distance_km(self, place: Place, rows_K: Int32) -> Float64:
        """Along the ground, on a sphere, from a place to items (K,); NaN where they are unknown.

        Berlin to Paris is about 880 km:

        >>> paris = pa.table({"latitude": [48.8566], "longitude": [2.3522]})
        >>> Places.from_items(paris).distance_km(Place(52.52, 13.405), np.array([0])).round().tolist()
        [877.0]
        """
        return km_of(np.linalg.norm(self.point_I3[rows_K] - unit_vector(*place), axis=1))

    def __len__(self) -> int:
        return len(self.point_I3)


def _points(items: pa.Table) -> Float64:
    degrees = [_numbers(items, name) for name in (Column.LATITUDE, Column.LONGITUDE)]
    return unit_vector(*degrees)


def _numbers(items: pa.Table, name: str) -> Float64:
    if name not in items.column_names:
        return np.full(len(items), np.nan)
    column: Any = items[name].cast(pa.float64())
    return np.asarray(column.to_numpy(), np.float64)
