"""Vectors of items by what they are, not by who took them: an item has one before its first event."""

from tastemaker.features.content.config import ContentConfig, ContrastiveConfig, NamedVector, is_heavy
from tastemaker.features.content.space import ContentSpace, as_tensors, config_in, space_in, texts_of

__all__ = [
    "ContentConfig",
    "ContentSpace",
    "ContrastiveConfig",
    "NamedVector",
    "as_tensors",
    "config_in",
    "is_heavy",
    "space_in",
    "texts_of",
]
