"""The content part of a bundle: the space that items are encoded in, and the vectors of the catalogue.

Shape letters: I catalogue, D dimension.
"""

from dataclasses import dataclass
from pathlib import Path

from tastemaker.bundle.writer import BundleWriter
from tastemaker.data.schema import Dataset
from tastemaker.features.content import ContentConfig, ContentSpace
from tastemaker.home import Home
from tastemaker.index.building import build_index
from tastemaker.index.config import IndexConfig
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.models.cold.item_content import fit_space, items_of
from tastemaker.models.log import Log
from tastemaker.stages.content import CONTENT_INDEX, CONTENT_SPACE, ContentSource
from tastemaker.stages.retrieval import ContentSourceConfig
from tastemaker.stages.source import Source
from tastemaker_training.artifacts import load_model, load_tensors, save_model, save_tensors

CONTENT_TENSORS = f"{CONTENT_SPACE}.safetensors"
"""Of a bundle: what the space learned, of which indexes of content vectors are made."""
_VECTORS = "vectors.safetensors"
_CACHE = "checkpoints/content"


@dataclass(frozen=True)
class Content:
    """A space with the index of the items' vectors in it."""

    space: ContentSpace
    index: FaissIndex

    @classmethod
    def load(cls, folder: Path, config: IndexConfig) -> "Content":
        """What `fit_content` wrote, under an index of `config`."""
        vectors_ID = load_tensors(folder / _VECTORS)["vectors"]
        index = build_index(vectors_ID, config).index
        return cls(load_model(folder, CONTENT_SPACE, ContentSpace), index)

    def source(self, dataset: Dataset, config: ContentSourceConfig) -> Source:
        """The source `content`."""
        row = {item_id: i for i, item_id in enumerate(dataset.item_ids)}
        return ContentSource("content", self.index, row.get, config)

    def add_to(self, writer: BundleWriter) -> None:
        """Adds space and vectors."""
        writer.add_model(CONTENT_SPACE, self.space)
        writer.add_index(CONTENT_INDEX, self.index, CONTENT_TENSORS)


def fit_content(log: Log, config: ContentConfig, home: Home, folder: Path) -> None:
    """Fits the space on the catalogue and encodes it, what was not encoded by an earlier training, into `folder`.

    Args:
        log: With the table of the catalogue's items; from what people took a projection learns, where the config has one.
        config: What vectors are made of.
        home: Where vectors of texts are kept.
        folder: Of the artifact.

    Raises:
        DataError: A projection is to be learned, and nobody took two items.
        MissingExtraError: The encoder is not installed.
    """
    space, vectors_ID = fit_space(items_of(log, "content space"), config, log, home / _CACHE)
    save_model(folder, CONTENT_SPACE, space)
    save_tensors(folder / _VECTORS, {"vectors": vectors_ID})
