"""Devices and positions from an imported log to both models, by the commands that a user types."""

from pathlib import Path

import numpy as np
import pytest
from small import COLUMNS, NUM_USERS, SmallHome, write_log

from tastemaker_training.rows.ranking_file import load_ranking_data

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
LOGGED = """
extends: small.yaml
two_tower: {model: {context: [hours, devices]}}
ranker: {model: {position: true, context: [devices, weekdays]}}
"""


def test_a_recipe_with_devices_and_positions_trains_once_the_data_has_them(tmp_path: Path) -> None:
    home = SmallHome(tmp_path)
    home.write("logged.yaml", LOGGED)
    refused = home.start("train", "logged.yaml", "--workers", "1")
    _, error = refused.communicate(timeout=300)
    assert refused.returncode == 1
    assert "feature devices of two_tower.model.context, is 'unknown in all of the data'" in error
    assert not list(home.home.glob("checkpoints/two-tower-*"))

    summary = home.json("data", "import", str(write_log(tmp_path)), "--columns", COLUMNS, "--json")
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


def test_recipes_weigh_clicks_by_slot_and_popularity(tmp_path: Path) -> None:
    home = SmallHome(tmp_path)
    home.json("data", "import", str(write_log(tmp_path, fall=0.5)), "--columns", COLUMNS, "--json")
    (tmp_path / "examination.json").write_text('{"examination": [1.0, 0.5, 0.25, 0.125]}')
    weighed = "extends: small.yaml\nranker: {fit: {epochs: 1, click_weights: {%s}}}\n"
    home.write("file.yaml", weighed % "position: file, file: examination.json, least_examination: 0.2")
    home.write("em.yaml", weighed % "position: em, popularity: 0.5")
    home.run("train", "file.yaml", "em.yaml", "--workers", "1")
    by_slot = {}
    for file in home.home.glob("checkpoints/requests-*/requests.safetensors"):
        data = load_ranking_data(file)
        assert data.weight_N is not None
        slot_N = np.concatenate([bags["position"].values for bags in data.bags])
        clicked_N = data.clicks > 0
        means = [float(data.weight_N[clicked_N & (slot_N == slot)].mean()) for slot in (1, 2, 3, 4)]
        by_slot["file" if means[0] == 1 else "em"] = means
    assert by_slot["file"] == pytest.approx([1.0, 2.0, 4.0, 5.0])  # 8 is clipped at 1 / .2
    # Each slot is clicked half as often as the one above, and what is in it is as good.
    assert by_slot["em"][0] < by_slot["em"][1] < by_slot["em"][2]
