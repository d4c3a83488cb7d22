"""Models of the zoo beside RecBole, RecTools and `implicit`: `make bench-models`.

What evaluating takes, what ALS takes on top of `implicit`, lists out of a large catalogue, and epochs. Times are processor seconds of
one thread. RecBole and RecTools are installed by pip, at run time, into environments under benchmarks/out. A part alone:
`make bench-models ARGS="--only als"`.
"""

import os
from typing import Final

import kept
from turns import Effort

PARTS: Final = {
    "evaluation": "models_evaluation:evaluation",
    "lists": "models_evaluation:lists",
    "memory": "models_evaluation:memory",
    "large": "models_large:large",
    "als": "models_als:als",
    "sasrec": "models_sequences:sasrec",
    "sasrec-recbole": "models_sequences:sasrec_recbole",
    "deepfm": "models_networks:deepfm",
    "two-tower": "models_networks:two_tower",
}
"""Part by part, in the page's order: module and function that measure it."""
_INTRO: Final = (
    "`make bench-models`, part by part. Median over turns [least, most] of processor seconds of one thread; contenders take turns, and "
    "ratios are those of one turn, so that a loaded machine counts for both."
)

if __name__ == "__main__":
    effort = Effort(turns=15) if os.environ.get("FULL") == "1" else Effort()
    kept.main("models", "Models of the zoo", _INTRO, __doc__ or "", PARTS, list(PARTS), effort)
