"""How much each item of a history counts: newer items more, by a half-life in items, not in time.

Shape letters: L history.
"""

import numpy as np

from tastemaker.types import Float32


def recency_weights(length: int, half_life: float | None) -> Float32:
    """Weights (L,) of a history that is ordered oldest first.

    The newest weighs 1, the one `half_life` items before it 0.5. Without a half-life all weigh 1.

    >>> recency_weights(3, half_life=1.0)
    array([0.25, 0.5 , 1.  ], dtype=float32)
    """
    if half_life is None:
        return np.ones(length, np.float32)
    age_L = np.arange(length - 1, -1, -1, dtype=np.float32)
    weight_L: Float32 = np.exp2(-age_L / np.float32(half_life)).astype(np.float32)
    return weight_L
