"""What a content vector is made of."""

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from tastemaker.strict import Strict

MINILM_DIM = 384


class NamedVector(Strict):
    """A vector that the catalogue itself gives for items, such as one of their picture."""

    name: str = Field(min_length=1, description="its name in the column `vectors`")
    dim: int = Field(ge=1, le=8192, description="its length; items with another are as without")
    weight: float = Field(1.0, gt=0, description="its weight beside text and metadata")


class ContrastiveConfig(Strict):
    """A projection that brings items near each other that the same people took, see `models.cold.contrastive`."""

    dim: int = Field(64, ge=2, le=1024, description="length of a projected vector")
    hidden: int = Field(128, ge=1, description="width of its hidden layer")
    temperature: float = Field(
        0.5, gt=0, description="divides products: the lower, the harder others are pushed away"
    )
    window: int = Field(
        10, ge=1, description="places in a history between two items that count as taken together"
    )
    dropped: float = Field(
        0.2, ge=0, lt=1, description="share of times that a part of an item is left out in the fit"
    )
    steps: int = Field(1000, ge=1, description="steps of the fit")
    batch_size: int = Field(
        512, ge=2, description="pairs of a step; each is told from all others of its step"
    )
    learning_rate: float = Field(0.001, gt=0, description="step size of Adam")
    seed: int = Field(0, ge=0, description="start, pairs and their order")


class ContentConfig(Strict):
    """Encoder and parts. The similarity of two items is the mean of their parts' cosines, by these weights."""

    LATER: ClassVar = frozenset({"projection", "contrastive"})

    encoder: Literal["hashing", "minilm"] = Field(
        "hashing", description="of texts: hashed words, or a sentence encoder (extra `text`)"
    )
    dim: int = Field(128, ge=8, le=4096, description="length of the part of texts; minilm has at most 384")
    text_weight: float = Field(1.0, gt=0, description="weight of title and description")
    metadata_dim: int = Field(64, ge=8, le=4096, description="length of the part of category and tags")
    metadata_weight: float = Field(1.0, gt=0, description="weight of category and tags")
    vectors: tuple[NamedVector, ...] = Field((), description="further vectors that items may have")
    projection: Literal["none", "contrastive"] = Field(
        "none", description="whether vectors are projected to where items lie near that the same people took"
    )
    contrastive: ContrastiveConfig = Field(
        default_factory=ContrastiveConfig, description="that projection, where it is contrastive"
    )

    @field_validator("vectors")
    @classmethod
    def _distinct(cls, vectors: tuple[NamedVector, ...]) -> tuple[NamedVector, ...]:
        if len({vector.name for vector in vectors}) < len(vectors):
            raise ValueError("vectors that are named once each")
        return vectors

    @property
    def part_dims(self) -> tuple[int, ...]:
        """Lengths of the parts of a vector as they lie side by side: texts, metadata, further vectors."""
        return (self.dim, self.metadata_dim, *(vector.dim for vector in self.vectors))

    def unprojected(self) -> "ContentConfig":
        """The same without a projection."""
        return ContentConfig(
            **{
                name: getattr(self, name)
                for name in ContentConfig.model_fields
                if name not in ContentConfig.LATER
            }
        )


def is_heavy(config: ContentConfig) -> bool:
    """Whether the encoder takes seconds to load and much memory: serving leaves it to one process."""
    return config.encoder == "minilm"
