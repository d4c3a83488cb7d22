"""What fitting an ALS as a recommender takes on top of `implicit` alone, which fits it."""

import time
from collections.abc import Callable

from turns import Effort, Part, column, ratios, shown, turns

ALS_TARGET = 1.05


def als(effort: Effort) -> Part:
    """Fitting as a recommender beside `implicit` alone, the same matrix and settings."""
    import numpy as np
    from implicit.cpu.als import AlternatingLeastSquares
    from reproduce_data import ratings

    from tastemaker.models import zoo

    log = ratings("ml-1m").log()
    iterations = 15

    def timed(fit: Callable[[], object]) -> dict[str, float]:
        began = time.process_time()
        fit()
        return {"seconds": time.process_time() - began}

    def theirs() -> None:
        model = AlternatingLeastSquares(
            factors=64, regularization=0.05, alpha=1.0, iterations=iterations, num_threads=1, random_state=0
        )
        matrix_UI = log.matrix()
        matrix_UI.data = np.full_like(matrix_UI.data, 2.0)
        model.fit(matrix_UI, show_progress=False)

    jobs: dict[str, Callable[[], dict[str, float]]] = {
        "tastemaker": lambda: timed(lambda: zoo.fit("als", log, {"iterations": iterations})),
        "implicit": lambda: timed(theirs),
    }
    found = turns(1 if effort.divide > 1 else effort.turns, jobs)
    part = Part(
        f"ALS of ML-1M, 64 factors, {iterations} iterations, one thread", ("whose", "CPU s of a fit", "ratio")
    )
    over = ratios(column(found["tastemaker"], "seconds"), column(found["implicit"], "seconds"))
    part.rows += [
        ("tastemaker", shown(column(found["tastemaker"], "seconds")), shown(over, 3)),
        ("implicit", shown(column(found["implicit"], "seconds")), ""),
    ]
    part.target("ALS over implicit, median", sorted(over)[len(over) // 2], ALS_TARGET, "lower")
    part.figures["ratios"], part.num_turns = over, len(over)
    return part
