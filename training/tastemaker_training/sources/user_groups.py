"""The group that each interaction is of: by age band, gender, device and time of day. And where users live, by profiles."""

import time
from collections.abc import Sequence

import numpy as np

from tastemaker.data.splits import Histories
from tastemaker.features.context import DEVICE, HOURS, PARTS_OF_DAY, part_of_day
from tastemaker.features.places import Place
from tastemaker.home import Home
from tastemaker.models.popular_groups import GroupsConfig, fit_groups
from tastemaker.models.popularity import Popularity
from tastemaker.types import DEVICES
from tastemaker.users.archive import profiles_of, read_profiles
from tastemaker.users.profile import DEMOGRAPHIC, Demographics, Location, demographic_group

_HOUR_MS = 3_600_000


def demographic_groups(home: Home, catalogue: str, user_ids: Sequence[str]) -> list[str | None]:
    """The demographic group of each user, as of now; None where the profile tells of none, or the user opted out.

    Raises:
        DataError: The archived profiles cannot be read.
    """
    now_ms = time.time_ns() // 1_000_000
    table = read_profiles(home, catalogue).select(["user_id", "demographics", "personalise"])
    known = {
        user_id: demographic_group(Demographics.model_validate_json(parts["demographics"]), now_ms)
        for user_id, parts in profiles_of(table)
        if "demographics" in parts and parts.get("personalise") != "false"
    }
    return [known.get(user_id) for user_id in user_ids]


def homes_of(home: Home, catalogue: str) -> dict[str, Place]:
    """Where users are at home, as of now and to about a kilometre, as in serving; who opted out is not among them.

    Raises:
        DataError: The archived profiles cannot be read.
    """
    table = read_profiles(home, catalogue).select(["user_id", "location", "personalise"])
    told = {
        user_id: Location.model_validate_json(parts["location"])
        for user_id, parts in profiles_of(table)
        if "location" in parts and parts.get("personalise") != "false"
    }
    return {user_id: Place(place.lat, place.lon).coarse() for user_id, place in told.items()}


def with_groups(
    popularity: Popularity, histories: Histories, group_U: Sequence[str | None], config: GroupsConfig
) -> Popularity:
    """The popularity with that among users of each group: of the users, of the devices and hours in the histories."""
    user_N = np.repeat(np.arange(len(histories)), histories.lengths)
    by_user = [f"{DEMOGRAPHIC}={group}" if group else None for group in group_U]
    device_U = [None, *(f"{DEVICE}={name}" for name in DEVICES)]
    rows_N = histories.device_row
    by_device = [] if rows_N is None else [device_U[row] for row in rows_N.tolist()]
    names: list[str] = []
    shares = []
    for group_N in ([by_user[user] for user in user_N.tolist()], by_device, _by_hours(histories, config)):
        if any(group_N):
            found, share_GI = fit_groups(
                histories.item_index, user_N, group_N, popularity.config.num_items, config
            )
            names += found
            shares.append(share_GI)
    return popularity.with_groups(names, np.concatenate(shares)) if names else popularity


def _by_hours(histories: Histories, config: GroupsConfig) -> list[str]:
    """The part of the day of each interaction; nothing where it is not told how far clocks are ahead of UTC."""
    if config.utc_offset_hours is None or histories.timestamp_ms is None:
        return []
    shown_ms_N = histories.timestamp_ms + round(config.utc_offset_hours * _HOUR_MS)
    names = [f"{HOURS}={part}" for part in PARTS_OF_DAY]
    return [names[part] for part in part_of_day(shown_ms_N).tolist()]
