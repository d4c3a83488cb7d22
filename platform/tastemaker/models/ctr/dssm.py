"""Two towers over hashed letters: a query's (or a user's) text and an item's meet in a cosine, so that vectors can be indexed.

Shape letters: N rows, B rows of a batch, V vectors of a row, D dimension, E dimension of the towers' output.
"""

import zlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tastemaker.errors import ConfigError
from tastemaker.models.ctr.fields import Fields, Rows
from tastemaker.models.ctr.network import NetworkConfig, NetworkModel
from tastemaker.models.ctr.vectors import Batch, FieldVectors, Network
from tastemaker.models.layers import mlp
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int32

_LEAST = 1e-24
"""Product of two squared lengths, below which a cosine is taken as if it were this."""


def letter_ngrams(text: str, num_values: int, size: int = 3) -> Int32:
    """Values, from 1 to `num_values`, of a field of many: each word's runs of letters, its ends marked [Huang et al. 2013, Sec. 3.2].

    #cat# has #ca, cat, at#; runs are hashed by CRC-32, the same on every machine.

    >>> len(letter_ngrams("Cat", 1000)), np.array_equal(letter_ngrams("CAT", 1000), letter_ngrams("cat", 1000))
    (3, True)
    """
    found = []
    for word in text.casefold().split():
        marked = f"#{word}#"
        found += [marked[at : at + size] for at in range(max(1, len(marked) - size + 1))]
    return np.array([zlib.crc32(run.encode()) % num_values + 1 for run in found], np.int32)


class DssmConfig(NetworkConfig):
    """DSSM."""

    query_fields: tuple[str, ...] = Field(min_length=1, description="fields of the one who asks")
    item_fields: tuple[str, ...] = Field(min_length=1, description="fields of the item")
    hidden: tuple[int, ...] = Field((128,), description="hidden widths of each tower")
    vector_dim: int = Field(64, ge=1, description="dimension of the towers' output")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of hidden units dropped in training")


class DssmNetwork(Network):
    """scale * cosine of the towers + bias."""

    def __init__(self, vectors: FieldVectors, config: DssmConfig) -> None:
        super().__init__()
        self.vectors = vectors
        self._at = [_places(vectors.fields, names) for names in (config.query_fields, config.item_fields)]
        self.towers = nn.ModuleList(
            mlp((len(at) * config.dim, *config.hidden, config.vector_dim), config.dropout) for at in self._at
        )
        self.scale = nn.Parameter(torch.tensor(5.0))

    def tower(self, vector_BVD: Tensor, which: int) -> Tensor:
        """(B, E) of length 1; 0 is the query's, 1 the item's."""
        return functional.normalize(self._raw(vector_BVD, which), dim=1)

    def forward(self, batch: Batch) -> Tensor:
        """(B,)."""
        vector_BVD, _ = self.vectors(batch)
        query_BE, item_BE = self._raw(vector_BVD, 0), self._raw(vector_BVD, 1)
        # The way back through two normalised towers takes a CPU three times as long.
        squares_B = (query_BE * query_BE).sum(1) * (item_BE * item_BE).sum(1)
        cosine_B = (query_BE * item_BE).sum(1) * squares_B.clamp_min(_LEAST).rsqrt()
        logit_B: Tensor = self.scale * cosine_B + self.vectors.bias
        return logit_B

    def _raw(self, vector_BVD: Tensor, which: int) -> Tensor:
        out_BE: Tensor = self.towers[which](vector_BVD[:, self._at[which]].flatten(1))
        return out_BE


class Dssm(NetworkModel):
    """DSSM [Huang et al. 2013].

    Departures: embeddings of the hashed runs are learned and averaged, layers are ReLU, and the loss is that of given labels, not a
    softmax over drawn items.
    """

    kind = "dssm"
    Config: ClassVar[type[Strict]] = DssmConfig

    @staticmethod
    def network(vectors: FieldVectors, config: Any) -> Network:
        """See `NetworkModel.network`."""
        return DssmNetwork(vectors, config)

    def query_vectors(self, rows: Rows) -> Float32:
        """(N, E) of length 1: their inner products with `item_vectors` order items as `predict` does. The item's fields are not read."""
        return self._tower(rows, 0)

    def item_vectors(self, rows: Rows) -> Float32:
        """(N, E) of length 1. The query's fields are not read."""
        return self._tower(rows, 1)

    def _tower(self, rows: Rows, which: int) -> Float32:
        rows.require(self.fields)
        network = self._network
        assert isinstance(network, DssmNetwork)
        with torch.inference_mode():
            vector_BVD, _ = network.vectors(network.vectors.batch(rows))
            found: Float32 = network.tower(vector_BVD, which).numpy()
        return found


def _places(fields: Fields, names: Sequence[str]) -> list[int]:
    if unknown := set(names) - set(fields.names):
        raise ConfigError(
            "fields of a DSSM's tower", value=", ".join(sorted(unknown)), limit=", ".join(fields.names),
            mend="name fields of the rows",
        )  # fmt: skip
    return [fields.names.index(name) for name in names]
