"""Click models on MovieLens-1M beside RecBole's benchmark of context-aware models, by its protocol.

Ratings of 3 are dropped, those above are a yes; rows are split 8:1:1 at random; AUC decides when a fit ends. Published: RecBole's
tables, whose split is not known. Settings start from those that it found best; what differs was chosen on validation rows.

A fit that is done is kept in benchmarks/out/reproduce-ctr and not done again while its settings, rows and code stay: seeds can be added later (SEEDS=1 does
the first alone), and a run that was broken off goes on.
"""

import argparse
import ast
import hashlib
import importlib.util
import inspect
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from pyarrow import csv
from report import ROOT, circumstances
from reproduce_data import folder, ratings
from reproduction import Reproduction
from turns import Effort

from tastemaker.evaluation.predictions import auc, logloss
from tastemaker.models.ctr.fields import Categorical, Fields, Multi, Rows
from tastemaker.models.ctr.kinds import click_model_class, fit
from tastemaker.models.ctr.model import Labelled

NUM_ROWS: Final = 739_012
SEEDS: Final = tuple(range(int(os.environ.get("SEEDS", "3"))))
KEPT: Final = ROOT / "benchmarks" / "out" / "reproduce-ctr"
_DEEP = {"hidden": [256, 256, 256], "dropout": 0.2, "fit": {"patience": 2}}
_CROSS = {"hidden": [256, 256], "dropout": 0.2, "cross_penalty": 1.0, "fit": {"patience": 2}}
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "lr": {"fit": {"epochs": 60}},
    "fm": {"fit": {"embedding_l2": 0.002}},
    "wide-deep": _DEEP,
    "deepfm": _DEEP | {"dropout": 0.1},
    "dcn": _CROSS
    | {"num_crosses": 6, "hidden": [512, 512, 512], "fit": {"patience": 2, "learning_rate": 0.001}},
    "dcn-v2": _CROSS
    | {"num_crosses": 2, "fit": {"patience": 2, "learning_rate": 0.002, "embedding_l2": 0.0003}},
    "dlrm": {"fit": {"patience": 2, "learning_rate": 0.002, "embedding_l2": 0.0003}},
}
PUBLISHED: Final = {
    "lr": (0.8699, 0.3488),
    "fm": (0.8935, 0.3262),
    "wide-deep": (0.8987, 0.3155),
    "deepfm": (0.8997, 0.3150),
    "dcn": (0.8994, 0.3164),
    "dcn-v2": (0.8998, 0.3119),
    "dlrm": (None, None),
}
LEAST_DLRM: Final = 0.898


@dataclass(frozen=True)
class Split:
    learned: Labelled
    validation: Labelled
    tested: Labelled


@cache
def rows() -> Labelled:
    """Rows of seven fields: user, item, age, gender, occupation, genres, year."""
    found = ratings("ml-1m")
    found = found.where(found.rating_N != 3)
    assert len(found) == NUM_ROWS, f"{len(found):,} rows, {NUM_ROWS:,} in the protocol"
    of_user, of_item = _table("user", found.user_ids), _table("item", found.item_ids)
    columns: dict[str, Any] = {"user": found.user_N + 1, "item": found.item_N + 1}
    one = [
        Categorical(name="user", num_values=found.num_users), Categorical(name="item", num_values=found.num_items)
    ]  # fmt: skip
    for name in ("age", "gender", "occupation"):
        values, row = np.unique(of_user[name], return_inverse=True)
        columns[name] = (row + 1)[found.user_N]
        one.append(Categorical(name=name, num_values=len(values)))
    values, row = np.unique(of_item["release_year"], return_inverse=True)
    columns["year"] = (row + 1)[found.item_N]
    one.append(Categorical(name="year", num_values=len(values)))
    genres = [str(text).split() for text in of_item["genre"]]
    number = {name: at for at, name in enumerate(sorted({name for some in genres for name in some}), 1)}
    numbers = [[number[name] for name in some] for some in genres]
    columns["genre"] = [numbers[item] for item in found.item_N]
    fields = Fields(categorical=tuple(one), multi=(Multi(name="genre", num_values=len(number)),))
    return Labelled.of(Rows.of(fields, columns), found.rating_N > 3)


def _table(what: str, ids: list[str]) -> dict[str, np.ndarray]:
    """Columns of the file of users or items, a row for each id."""
    options = csv.ParseOptions(delimiter="\t", quote_char=False)
    table = csv.read_csv(folder("ml-1m") / f"ml-1m.{what}", parse_options=options)
    table = table.rename_columns([column.partition(":")[0] for column in table.column_names])
    at = {str(value): row for row, value in enumerate(table.column(f"{what}_id").to_pylist())}
    order = [at[one] for one in ids]
    return {name: table.column(name).to_numpy(zero_copy_only=False)[order] for name in table.column_names}


def split(seed: int) -> Split:
    """8:1:1 of the rows, at random."""
    whole = rows()
    order = np.random.default_rng(seed).permutation(len(whole))
    cuts = (int(0.8 * len(whole)), int(0.9 * len(whole)))
    return Split(*(whole.take(part) for part in np.split(order, cuts)))


def settings(kind: str, seed: int, effort: Effort) -> dict[str, Any]:
    """Of a model; a quick run has one epoch."""
    found = dict(SETTINGS[kind]) | {"seed": seed}
    if effort.divide > 1:
        found["fit"] = dict(found.get("fit", {})) | {"epochs": 1}
    return found


def measured(part: Reproduction, kind: str, seed: int, effort: Effort) -> dict[str, float]:
    """Figures on test rows, and on validation rows those by which settings are chosen."""
    of = split(seed)
    model = part.timed(kind, lambda: fit(kind, of.learned, settings(kind, seed, effort), of.validation))
    found: dict[str, float] = {"epochs": len(model.losses)}
    for name, labelled in (("validation", of.validation), ("test", of.tested)):
        probability_N = model.predict(labelled.rows)
        found[f"{name} AUC"] = auc(probability_N, labelled.label_N)
        found[f"{name} logloss"] = logloss(probability_N, labelled.label_N)
    return found


def kept(part: Reproduction, kind: str, seed: int, effort: Effort) -> dict[str, float]:
    """What `measured` found, now or in an earlier run with the same settings, rows and code; a quick run keeps nothing."""
    if effort.divide > 1:
        return measured(part, kind, seed, effort)
    asked = settings(kind, seed, effort) | {"rows": NUM_ROWS, "code": _code(kind)}
    path = KEPT / f"{kind}-{seed}.json"
    if path.exists() and (found := json.loads(path.read_text()))["settings"] == asked:
        part.seconds.setdefault(kind, []).append(found["seconds"])
        return dict(found["figures"])
    figures = measured(part, kind, seed, effort)
    KEPT.mkdir(parents=True, exist_ok=True)
    found = {"settings": asked, "figures": figures, "seconds": part.seconds[kind][-1]} | circumstances()
    path.write_text(json.dumps(found, indent=1))
    print(f"  {kind}, seed {seed}: {figures}", flush=True)
    return figures


def _code(kind: str) -> str:
    """A digest of what a fit depends on: how its rows are made, and the model's modules of this project."""
    made = "".join(inspect.getsource(function) for function in (rows.__wrapped__, _table, split, measured))
    return hashlib.sha256(made.encode() + b"".join(_modules(click_model_class(kind).__module__))).hexdigest()[
        :12
    ]


def _modules(*names: str) -> list[bytes]:
    """The sources of modules and, in the order of their names, of the modules of models that these import."""
    found, open_names = dict[str, bytes](), set(names)
    while open_names:
        name = open_names.pop()
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        assert spec.origin is not None, name
        found[name] = Path(spec.origin).read_bytes()
        for node in ast.walk(ast.parse(found[name])):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tastemaker.models."):
                open_names |= {str(node.module)} - found.keys()
    return [found[name] for name in sorted(found)]


def ctr(effort: Effort, kinds: tuple[str, ...] = tuple(SETTINGS)) -> Reproduction:
    """All models over some splits."""
    part = Reproduction("Click models: MovieLens-1M, ratings of 3 dropped, 8:1:1 at random, embeddings of 16")
    seeds = SEEDS[:1] if effort.divide > 1 else SEEDS
    by_seed = [{kind: kept(part, kind, seed, effort) for kind in kinds} for seed in seeds]
    for kind in kinds:
        found = [of_kind[kind] for of_kind in by_seed]
        published_auc, published_logloss = PUBLISHED[kind]
        least = LEAST_DLRM if published_auc is None else published_auc - 0.002
        part.add(kind, "AUC", [one["test AUC"] for one in found], published_auc, least)
        most = None if published_logloss is None else published_logloss + 0.003
        part.add(kind, "logloss", [one["test logloss"] for one in found], published_logloss, most, "lower")
    part.notes.append("Published: RecBole's benchmark; of DLRM it has none, and at least 0.898 is asked for.")
    return part


def main() -> None:
    """One fit with settings of one's own, a line of JSON: for tuning by validation rows."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("kind", choices=list(SETTINGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON over those of SETTINGS")
    parser.add_argument("--out", type=Path, help="file to add the line to")
    asked = parser.parse_args()
    SETTINGS[asked.kind] |= asked.settings
    part = Reproduction("one fit")
    found: dict[str, Any] = {"kind": asked.kind, "seed": asked.seed, "settings": SETTINGS[asked.kind]}
    found |= measured(part, asked.kind, asked.seed, Effort())
    found |= {"seconds": round(part.seconds[asked.kind][0])}
    line = json.dumps(found)
    print(line, flush=True)
    if asked.out:
        with asked.out.open("a") as file:
            file.write(json.dumps(found | circumstances()) + "\n")


if __name__ == "__main__":
    main()
