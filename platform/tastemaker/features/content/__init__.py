"""Vectors of items by what they are, not by who took them: an item has one before its first event."""

from tastemaker.features.content.config import ContentConfig, ContrastiveConfig, NamedVector, is_heavy
from tastemaker.features.content.space import ContentSpace, texts_of

__all__ = ["ContentConfig", "ContentSpace", "ContrastiveConfig", "NamedVector", "is_heavy", "texts_of"]
