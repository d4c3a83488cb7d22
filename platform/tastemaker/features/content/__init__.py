"""Vectors of items by what they are, not by who took them: an item has one before its first event."""

from tastemaker.features.content.config import ContentConfig, ContrastiveConfig, NamedVector, is_heavy
from tastemaker.features.content.space import CONTENT, ContentSpace, config_in, has_space, space_in, texts_of

__all__ = [
    "CONTENT",
    "ContentConfig",
    "ContentSpace",
    "ContrastiveConfig",
    "NamedVector",
    "config_in",
    "has_space",
    "is_heavy",
    "space_in",
    "texts_of",
]
