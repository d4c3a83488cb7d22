"""The ranker's data as one file, from the driver that makes it to the ranks that read it.

Shape letters: N candidates of all requests, T targets, G requests.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np

from tastemaker.features.ranking_batch import Bag
from tastemaker.features.ranking_data import RankingData, Target
from tastemaker_training.artifacts import load_tensors, save_tensors


def save_ranking_data(path: Path, data: RankingData) -> None:
    """Writes the requests as safetensors."""
    arrays: dict[str, np.ndarray] = {
        "dense": data.dense_NF,
        "offsets": data.offsets_G1,
    }
    for column, target in enumerate(data.targets):
        arrays[f"labels.{column}.{target}"] = data.label_NT[:, column]
    for feature in data.bags[0]:
        whole = Bag.concat([bags[feature] for bags in data.bags])
        arrays |= {f"bags.{feature}.{part}": array for part, array in whole._asdict().items()}
    if data.weight_N is not None:
        arrays["weights"] = data.weight_N
    save_tensors(path, arrays | {"num_missed": np.array([data.num_missed])})


def load_ranking_data(path: Path) -> RankingData:
    """The requests that `save_ranking_data` wrote."""
    arrays = load_tensors(path)
    offsets_G1 = arrays["offsets"]
    features = sorted({name.split(".")[1] for name in arrays if name.startswith("bags.")})
    parts = {feature: _split_bag(arrays, feature, offsets_G1) for feature in features}
    bags = tuple({feature: parts[feature][g] for feature in features} for g in range(len(offsets_G1) - 1))
    labels = sorted(name for name in arrays if name.startswith("labels."))
    return RankingData(
        arrays["dense"],
        bags,
        np.stack([arrays[name] for name in labels], axis=1),
        offsets_G1,
        tuple(cast("Target", name.split(".")[2]) for name in labels),
        int(arrays["num_missed"][0]),
        arrays.get("weights"),
    )


def _split_bag(arrays: Mapping[str, np.ndarray], feature: str, offsets_G1: np.ndarray) -> list[Bag]:
    """One bag per candidate, request by request."""
    values, lengths, weights = (arrays[f"bags.{feature}.{part}"] for part in Bag._fields)
    ends_G1 = np.concatenate([[0], np.cumsum(lengths)])[offsets_G1]
    spans = zip(pairwise(ends_G1), pairwise(offsets_G1), strict=True)
    return [
        Bag(values[begin:end], lengths[first:last], weights[begin:end])
        for (begin, end), (first, last) in spans
    ]
