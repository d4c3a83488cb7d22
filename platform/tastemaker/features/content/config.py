"""What a content vector is made of."""

from typing import Literal

from pydantic import Field, field_validator

from tastemaker.strict import Strict

MINILM_DIM = 384


class NamedVector(Strict):
    """A vector that the catalogue itself gives for items, such as one of their picture."""

    name: str = Field(min_length=1, description="its name in the column `vectors`")
    dim: int = Field(ge=1, le=8192, description="its length; items with another are as without")
    weight: float = Field(1.0, gt=0, description="its weight beside text and metadata")


class ContentConfig(Strict):
    """Encoder and parts. The similarity of two items is the mean of their parts' cosines, by these weights."""

    encoder: Literal["hashing", "minilm"] = Field(
        "hashing", description="of texts: hashed words, or a sentence encoder (extra `text`)"
    )
    dim: int = Field(128, ge=8, le=4096, description="length of the part of texts; minilm has at most 384")
    text_weight: float = Field(1.0, gt=0, description="weight of title and description")
    metadata_dim: int = Field(64, ge=8, le=4096, description="length of the part of category and tags")
    metadata_weight: float = Field(1.0, gt=0, description="weight of category and tags")
    vectors: tuple[NamedVector, ...] = Field((), description="further vectors that items may have")

    @field_validator("vectors")
    @classmethod
    def _distinct(cls, vectors: tuple[NamedVector, ...]) -> tuple[NamedVector, ...]:
        if len({vector.name for vector in vectors}) < len(vectors):
            raise ValueError("vectors that are named once each")
        return vectors


def is_heavy(config: ContentConfig) -> bool:
    """Whether the encoder takes seconds to load and much memory: serving leaves it to one process."""
    return config.encoder == "minilm"
