"""Devices and positions from an imported log to both models, by the commands that a user types."""

from pathlib import Path

import numpy as np
import pytest
from small import NUM_GROUPS, NUM_ITEMS, NUM_USERS, SmallHome

from tastemaker.types import DEVICES
from tastemaker_training.ranking_file import load_ranking_data

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
LOGGED = """
extends: small.yaml
two_tower: {model: {context: [hours, devices]}}
ranker: {model: {position: true, context: [devices, weekdays]}}
"""
COLUMNS = "{kind: kind, position: rank, device: device, items: items.csv}"


def write_log(folder: Path) -> Path:
    """Users who stay with one of four groups: each clicks one of the four items of sixteen lists, from device to device."""
    random = np.random.default_rng(0)
    rows = ["user_id,item_id,timestamp,kind,rank,device"]
    for user in range(NUM_USERS):
        mine = np.flatnonzero(np.arange(NUM_ITEMS) % NUM_GROUPS == user % NUM_GROUPS)
        others = np.setdiff1d(np.arange(NUM_ITEMS), mine)
        for nth, item in enumerate([*random.permutation(mine)[:14], *random.permutation(others)[:2]]):
            shown = random.permutation(
                [item, *random.choice(np.setdiff1d(np.arange(NUM_ITEMS), item), 3, replace=False)]
            )
            seconds, device = 1_000_000_000 + nth * 60, DEVICES[(user + nth) % len(DEVICES)]
            rows += [f"u{user},{one},{seconds},impression,{rank},{device}" for rank, one in enumerate(shown)]
            rows.append(f"u{user},{item},{seconds + 9},click,{list(shown).index(item)},{device}")
    (folder / "log.csv").write_text("\n".join(rows) + "\n")
    items = [f"{item},Genre{item % NUM_GROUPS}" for item in range(NUM_ITEMS)]
    (folder / "items.csv").write_text("\n".join(["item_id,tags", *items]) + "\n")
    (folder / "columns.yaml").write_text(COLUMNS)
    return folder / "log.csv"


def test_a_recipe_with_devices_and_positions_trains_once_the_data_has_them(tmp_path: Path) -> None:
    home = SmallHome(tmp_path)
    home.write("logged.yaml", LOGGED)
    refused = home.start("train", "logged.yaml", "--workers", "1")
    _, error = refused.communicate(timeout=300)
    assert refused.returncode == 1
    assert "feature devices of two_tower.model.context, is 'unknown in all of the data'" in error
    assert not list(home.home.glob("checkpoints/two-tower-*"))

    summary = home.json("data", "import", str(write_log(tmp_path)), "--columns", "columns.yaml", "--json")
    assert summary["num_rejected"] == 0
    home.run("train", "logged.yaml", "--workers", "1")
    rows = {row["system"]: row["ndcg@10"] for row in home.json("evaluate", "logged", "--json")["rows"]}
    for learned in ("two-tower", "pipeline"):
        assert rows[learned] > 1.5 * rows["popularity"]

    (file,) = home.home.glob("checkpoints/requests-*/requests.safetensors")
    data = load_ranking_data(file)
    assert len(data) == NUM_USERS
    taken = np.concatenate([bags["position"].values for bags in data.bags])[data.clicks > 0]
    left = np.concatenate([bags["position"].values for bags in data.bags])[data.clicks == 0]
    assert {1, 2, 3, 4} <= set(taken)
    assert {1, 2, 3, 4} <= set(left)
    devices = {int(bags["query_devices"].values[0]) for bags in data.bags}
    assert devices == {1, 2, 3, 4, 5}
