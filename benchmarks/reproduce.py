"""Models beside the tables that were published of them, by the same protocol: `make reproduce`.

Each part trains and evaluates some models; what it found is kept in benchmarks/out/reproduce-PART.json when it is done, and the page
docs/results/DATE-reproduce.md is written from all parts that are there. Parts that take over an hour are run by `make
reproduce-full` (FULL=1), or when they are named: `make reproduce ARGS="--only sequence"`.
"""

import os
from typing import Final

import kept

PARTS: Final = {
    "topn": "reproduce_topn:topn",
    "topn-popular": "reproduce_topn:popular",
    "topn-bpr": "reproduce_topn:pairwise",
    "topn-more": "reproduce_topn:more",
    "topn-ials": "reproduce_topn:implicit_factors",
    "rating-100k": "reproduce_rating:ml_100k",
    "rating-1m": "reproduce_rating:ml_1m",
    "ctr": "reproduce_ctr:ctr",
    "cold-items": "reproduce_cold:items_100k",
    "cold-users": "reproduce_cold:users_100k",
    "transfer": "reproduce_transfer:plenty",
    "transfer-scarce": "reproduce_transfer:scarce",
    "transfer-monitor": "reproduce_transfer:monitored",
}
"""Part by part, in the page's order: module and function (of an Effort, gives a Part) that do it in an hour at most."""
LONG: Final = {
    "topn-neural": "reproduce_topn:neural",
    "sasrec": "reproduce_sequence:sasrec",
    "gsasrec": "reproduce_sequence:gsasrec",
    "sasrec-ce": "reproduce_sequence:sasrec_ce",
    "bert4rec": "reproduce_sequence:bert4rec",
    "gru4rec": "reproduce_sequence:gru4rec",
    "cold-items-1m": "reproduce_cold:items_1m",
    "cold-users-1m": "reproduce_cold:users_1m",
    "transfer-1m": "reproduce_transfer:plenty_1m",
    "transfer-scarce-1m": "reproduce_transfer:scarce_1m",
}
"""The same of those that take longer."""


_INTRO: Final = (
    "`make reproduce` and `make reproduce-full`. Means over seeds or folds [least, most]; seconds are of one fit. Settings were chosen "
    "on validation data of the first split, unless a part says otherwise (EASE, BPR, NeuMF and the click model DLRM in a few rounds that also "
    "printed that split's test figures); item-knn was not tuned."
)


if __name__ == "__main__":
    kept.main(
        "reproduce", "Models beside their published figures", _INTRO, __doc__ or "", PARTS | LONG,
        [*PARTS, *LONG] if os.environ.get("FULL") == "1" else list(PARTS),
    )  # fmt: skip
