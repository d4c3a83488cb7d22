"""Ranked scores on one scale, which rules can be weighed against.

Shape letters: K candidates.
"""

import numpy as np

from tastemaker.types import Float32, Float64


def relevance(score_K: Float32, num_head: int) -> Float32:
    """Scores (best first) as relevance: log-odds of probabilities, scaled so that the head goes from 1 to 0.

    Later candidates lie below 0. Where the head's scores are equal it is 1 for them, and 0 for later candidates. The
    probabilities of clicks crowd near 0, and their differences with them; log-odds spread them as the ranker saw them.
    Scores that leave 0..1 are no probabilities (retrieval's are not) and are scaled as they are.
    """
    value_K = score_K.astype(np.float64)
    if value_K.min() >= 0 and value_K.max() <= 1:
        value_K = log_odds(value_K)
    low, high = float(value_K[:num_head].min()), float(value_K[:num_head].max())
    if high - low < 1e-12:
        return (value_K >= low).astype(np.float32)
    scaled_K: Float32 = ((value_K - low) / (high - low)).astype(np.float32)
    return scaled_K


def log_odds(probability_K: Float64) -> Float64:
    """Log-odds (K,), finite also at 0 and 1."""
    p_K = np.clip(probability_K, 1e-9, 1 - 1e-9)
    odds_K: Float64 = np.log(p_K) - np.log1p(-p_K)
    return odds_K
