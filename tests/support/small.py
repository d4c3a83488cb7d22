"""A small catalogue with a known shape in a home of its own, and the command line as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tastemaker.types import DEVICES

NUM_USERS, NUM_ITEMS, NUM_GROUPS = 80, 60, 4
COLUMNS = "columns.yaml"

RECIPE = """
seed: 3
memory: {item_knn: {num_neighbours: 20}, ease: {l2: 20.0, keep: 30}, als: {dim: 8, iterations: 3}, half_lives: [2.0, 5.0]}
two_tower:
  model: {dim: 16, hidden: 16, max_history: 10}
  fit:
    epochs: 4
    batch_size: 64
    negatives: {num_sampled: 32}
    sharding: {default: data_parallel, tables: {item_ids: row_wise}}
ranker: {fit: {epochs: 2, requests_per_batch: 8}}
pipeline:
  retrieval:
    num_candidates: 40
    sources:
      - {name: two_tower, quota: 20}
      - {name: ease, quota: 20}
      - {name: als, quota: 20}
      - {name: popular, quota: 10, weight: 0.1}
"""


def movielens_folder(folder: Path, num_users: int = NUM_USERS) -> Path:
    """Users who stay with one of four groups of items, fourteen times of sixteen."""
    random = np.random.default_rng(0)
    rows = ["userId,movieId,rating,timestamp"]
    for user in range(num_users):
        mine = np.flatnonzero(np.arange(NUM_ITEMS) % NUM_GROUPS == user % NUM_GROUPS)
        others = np.setdiff1d(np.arange(NUM_ITEMS), mine)
        chosen = np.concatenate([random.permutation(mine)[:14], random.permutation(others)[:2]])
        for nth, item in enumerate(random.permutation(chosen)):
            rows.append(f"{user + 1},{item + 1},4.0,{1_000_000_000 + nth * 60}")
    movies = [
        f"{item + 1},Film {item} ({1990 + item % 20}),Genre{item % NUM_GROUPS}" for item in range(NUM_ITEMS)
    ]
    folder.mkdir()
    (folder / "ratings.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *movies]) + "\n", encoding="utf-8")
    return folder


def write_log(folder: Path, fall: float = 1.0) -> Path:
    """Users who stay with one of four groups: each clicks one of the four items of sixteen lists, from device to device.

    What they click is in each slot `fall` times as often as in the one above. `COLUMNS` names the columns.
    """
    random = np.random.default_rng(0)
    rows = ["user_id,item_id,timestamp,kind,rank,device"]
    for user in range(NUM_USERS):
        mine = np.flatnonzero(np.arange(NUM_ITEMS) % NUM_GROUPS == user % NUM_GROUPS)
        others = np.setdiff1d(np.arange(NUM_ITEMS), mine)
        for nth, item in enumerate([*random.permutation(mine)[:14], *random.permutation(others)[:2]]):
            shown = random.choice(np.setdiff1d(np.arange(NUM_ITEMS), item), 3, replace=False).tolist()
            shown.insert(random.choice(4, p=fall ** np.arange(4) / (fall ** np.arange(4)).sum()), item)
            seconds, device = 1_000_000_000 + nth * 60, DEVICES[(user + nth) % len(DEVICES)]
            rows += [f"u{user},{one},{seconds},impression,{rank},{device}" for rank, one in enumerate(shown)]
            rows.append(f"u{user},{item},{seconds + 9},click,{shown.index(item)},{device}")
    (folder / "log.csv").write_text("\n".join(rows) + "\n")
    items = [f"{item},Genre{item % NUM_GROUPS}" for item in range(NUM_ITEMS)]
    (folder / "items.csv").write_text("\n".join(["item_id,tags", *items]) + "\n")
    (folder / COLUMNS).write_text("{kind: kind, position: rank, device: device, items: items.csv}")
    return folder / "log.csv"


class SmallHome:
    """The catalogue, imported; `small.yaml` is its recipe. Commands run in processes of their own."""

    recipe: ClassVar[str] = RECIPE

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.write("small.yaml", self.recipe)
        self.run("data", "import", str(movielens_folder(folder / "ml")))

    def write(self, name: str, recipe: str) -> None:
        """A recipe beside the home."""
        (self.folder / name).write_text(recipe)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command under way."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("TASTEMAKER_", "RAY_"))}
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tastemaker.cli", "--debug", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder,
            env=clean | {"TASTEMAKER_HOME": str(self.home), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(self, *arguments: str) -> str:
        """What a command prints, which must succeed."""
        process = self.start(*arguments)
        out, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
        return out

    def json(self, *arguments: str) -> Any:
        """What a command prints as JSON."""
        return json.loads(self.run(*arguments))
