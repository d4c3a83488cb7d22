"""The space of content vectors: how an item's text, category, tags and further vectors become one unit vector.

A vector is the parts side by side, each of length 1 times the root of its weight, and the whole of length 1 again: the
product of two items is the weighted mean of their parts' cosines. What an item lacks is zeros and counts for nothing.
A head may project that vector further, by what people took together.

Shape letters: N items, R dimension of the parts together, D dimension.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute

from tastemaker.data.schema import Column
from tastemaker.errors import CompatibilityError, ConfigError
from tastemaker.features.content.cache import VectorCache
from tastemaker.features.content.config import MINILM_DIM, ContentConfig, NamedVector
from tastemaker.features.content.head import HEAD, ProjectionHead
from tastemaker.features.content.minilm import VERSION as MINILM_VERSION
from tastemaker.features.content.minilm import encode as encode_by_minilm
from tastemaker.features.content.words import VERSION as WORDS_VERSION
from tastemaker.features.content.words import HashedWords, unit, words_of
from tastemaker.strict import Strict
from tastemaker.types import Float32

pc: Any = pyarrow.compute  # its stubs know neither maps nor list arrays
log = logging.getLogger(__name__)
VECTORS: Final = "vectors"
"""Column of items' further vectors by name."""
CONTENT: Final = "content"
"""Of a model that has a space: the space's config in the model's own, and what begins the names of the space's tensors."""
_PROJECTION_SEED: Final = 0
_KEPT: Final = f"{CONTENT}.kept"
"""Among a model's tensors: the bytes of its space's config, of a model whose own config has none."""


class _Kept(Strict):
    """`content.json` of a bundle."""

    config: ContentConfig
    version: str
    fingerprint: str


class ContentSpace:
    """Encodes items, those of the fit and those that came later, into one space. Thread-safe.

    Args:
        config: What vectors are made of.
        tensors: What the fit learned: idf weights of metadata and of texts, or a projection of the texts' vectors; and the
            head, where the config has one.
    """

    def __init__(self, config: ContentConfig, tensors: Mapping[str, np.ndarray]) -> None:
        self.config, self._tensors = config, dict(tensors)
        missing = _names(config) - tensors.keys()
        if missing:
            raise CompatibilityError(
                "tensors of the content space", value=sorted(tensors), limit=f"with {', '.join(sorted(missing))}",
                mend="train again",
            )  # fmt: skip
        self._metadata = HashedWords(config.metadata_dim, tensors["metadata_idf"])
        self._words = HashedWords(config.dim, tensors["text_idf"]) if config.encoder == "hashing" else None
        self.raw_dim = self.dim = sum(config.part_dims)
        self._head: ProjectionHead | None = None
        if config.projection == "contrastive":
            self.dim = config.contrastive.dim
            self._head = ProjectionHead(tensors, self.raw_dim, self.dim)
        self.fingerprint = self._fingerprint()

    @classmethod
    def fit(cls, items: pa.Table, config: ContentConfig) -> Self:
        """The space of a catalogue, without a head: `with_head` adds one.

        Args:
            items: Of the catalogue, with the schema of imported items.
            config: What vectors are made of; its projection is left out.

        Raises:
            ConfigError: The encoder gives shorter vectors than the config asks for.
        """
        config = config.unprojected()
        tensors = {"metadata_idf": HashedWords.fit(_metadata_of(items), config.metadata_dim).idf_V}
        if config.encoder == "hashing":
            tensors["text_idf"] = HashedWords.fit(map(words_of, texts_of(items)), config.dim).idf_V
        elif config.dim > MINILM_DIM:
            raise ConfigError(
                "content.dim", value=config.dim, limit=f"at most {MINILM_DIM} with minilm", mend="lower it"
            )
        elif config.dim < MINILM_DIM:
            gaussian = np.random.default_rng(_PROJECTION_SEED).normal(size=(MINILM_DIM, config.dim))
            tensors["projection"] = np.linalg.qr(gaussian)[0].astype(np.float32)
        return cls(config, tensors)

    def with_head(self, config: ContentConfig, head: Mapping[str, np.ndarray]) -> "ContentSpace":
        """The same space, projected by a head that was learned from its vectors.

        Args:
            config: That of the fit.
            head: Tensors, see `features.content.head`.
        """
        return ContentSpace(config, {**self._tensors, **head})

    def project(self, raw_NR: Float32) -> Float32:
        """Vectors (N, D) of what the parts give; the same where there is no head."""
        return raw_NR if self._head is None else self._head(raw_NR)

    def encode(self, items: pa.Table, cache: Path | None = None) -> Float32:
        """Unit vectors (N, D) of items; zeros for one of which nothing is known.

        Args:
            items: With the schema of imported items; columns that are not there are unknown.
            cache: Folder that keeps what a slow encoder gave; unset, all is encoded.

        Raises:
            MissingExtraError: The encoder is not installed.
        """
        metadata_ND = self._metadata.encode(_metadata_of(items))
        parts = [
            (self.config.text_weight, self._texts(texts_of(items), cache)),
            (self.config.metadata_weight, metadata_ND),
            *((vector.weight, _named(items, vector)) for vector in self.config.vectors),
        ]
        return self.project(
            unit(np.concatenate([np.sqrt(weight) * part_ND for weight, part_ND in parts], axis=1))
        )

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Unit vectors (N, D) of free texts, such as a user's interests: they meet items by their texts.

        Raises:
            MissingExtraError: The encoder is not installed.
        """
        rest_ND = np.zeros((len(texts), self.raw_dim - self.config.dim), np.float32)
        return self.project(np.concatenate([self._texts(texts, None), rest_ND], axis=1))

    def _texts(self, texts: Sequence[str], cache: Path | None) -> Float32:
        if self._words is not None:
            return self._words.encode([words_of(text) for text in texts])
        some = [n for n, text in enumerate(texts) if text]
        wanted = [texts[n] for n in some]
        kept = None if cache is None else VectorCache(cache / MINILM_VERSION, MINILM_DIM)
        encoded = encode_by_minilm(wanted) if kept is None else kept.encode(wanted, encode_by_minilm)
        if "projection" in self._tensors:
            encoded = unit(encoded @ self._tensors["projection"])
        found_ND = np.zeros((len(texts), self.config.dim), np.float32)
        found_ND[some] = encoded
        return found_ND

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        parts = [self.config.model_dump(mode="json"), self._version]
        digest.update(json.dumps(parts, sort_keys=True).encode())
        for name in sorted(self._tensors):
            digest.update(name.encode() + np.ascontiguousarray(self._tensors[name], "<f4").tobytes())
        return digest.hexdigest()

    @property
    def _version(self) -> str:
        return f"{WORDS_VERSION} {MINILM_VERSION if self._words is None else ''}".strip()

    def config_dict(self) -> dict[str, Any]:
        """What `from_state` needs beside the tensors; JSON."""
        kept = _Kept(config=self.config, version=self._version, fingerprint=self.fingerprint)
        return kept.model_dump(mode="json")

    def tensors(self) -> dict[str, np.ndarray]:
        """What the fit learned."""
        return dict(self._tensors)

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """The space that `config_dict` and `tensors` describe; other tensors beside them are passed over.

        Raises:
            CompatibilityError: This release would give other vectors than those that were published.
        """
        kept = _Kept.parse(config, "content space")
        names = _names(kept.config)
        space = cls(kept.config, {name: value for name, value in tensors.items() if name in names})
        if space.fingerprint != kept.fingerprint:
            raise CompatibilityError(
                "fingerprint of the content space", value=f"{space.fingerprint[:12]} ({space._version})",
                limit=f"{kept.fingerprint[:12]} ({kept.version})", mend="train and publish again",
            )  # fmt: skip
        return space


def config_in(model: Mapping[str, Any]) -> ContentConfig | None:
    """What the content vectors of a model are made of, out of the model's own config; None where it has none."""
    own = model.get(CONTENT)
    if not isinstance(own, Mapping):
        return None
    return _Kept.parse(own, "content space").config if _is_kept(own) else ContentConfig.parse(own, CONTENT)


def as_tensors(space: ContentSpace) -> dict[str, np.ndarray]:
    """All of a space as tensors of the model that has it, for `space_in`: a release that knows none of them passes them over."""
    kept = np.frombuffer(json.dumps(space.config_dict()).encode(), np.uint8)
    return {f"{CONTENT}.{name}": value for name, value in space.tensors().items()} | {_KEPT: kept}


def space_in(model: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> ContentSpace | None:
    """The space that a model has, out of the model's config and tensors; None where it was saved without.

    Its tensors are copies: they keep nothing else of the model's in memory.

    Raises:
        CompatibilityError: See `ContentSpace.from_state`.
    """
    begin, own = f"{CONTENT}.", model.get(CONTENT)
    if _KEPT in tensors:
        own = json.loads(tensors[_KEPT].tobytes())
    if not isinstance(own, Mapping) or not _is_kept(own):
        return None
    found = {
        name.removeprefix(begin): value.copy() for name, value in tensors.items() if name.startswith(begin)
    }
    return ContentSpace.from_state(own, found)


def _is_kept(own: Mapping[str, Any]) -> bool:
    return "fingerprint" in own


def texts_of(items: pa.Table) -> list[str]:
    """Title and description of each item; empty where neither is known."""
    ids = items[Column.ITEM_ID].to_pylist()
    titles, descriptions = _column(items, Column.TITLE), _column(items, "description")
    return [
        ". ".join(part for part in ("" if title == item_id else title, description) if part)
        for item_id, title, description in zip(ids, titles, descriptions, strict=True)
    ]


def _metadata_of(items: pa.Table) -> list[list[str]]:
    categories, tags = _column(items, Column.CATEGORY), _column(items, Column.TAGS)
    return [
        [*([f"category={category}"] if category else ()), *(f"tag={tag}" for tag in own or ())]
        for category, own in zip(categories, tags, strict=True)
    ]


def _column(items: pa.Table, name: str) -> list[Any]:
    return items[name].to_pylist() if name in items.column_names else [None] * items.num_rows


def _named(items: pa.Table, vector: NamedVector) -> Float32:
    """Unit vectors (N, d) of a name; zeros where an item has none, or one of another length or not finite."""
    found_ND = np.zeros((items.num_rows, vector.dim), np.float32)
    if VECTORS not in items.column_names or not items.num_rows:
        return found_ND
    lists = pc.map_lookup(items[VECTORS].combine_chunks(), vector.name, "first")
    fits = pc.fill_null(pc.equal(pc.list_value_length(lists), vector.dim), False)
    rows = np.flatnonzero(fits.to_numpy(zero_copy_only=False))
    values = np.asarray(lists.filter(fits).flatten().to_numpy(zero_copy_only=False), np.float32)
    given_ND = values.reshape(-1, vector.dim)
    finite = np.isfinite(given_ND).all(axis=1)
    if left_out := len(lists) - lists.null_count - int(finite.sum()):
        log.warning("%d items' vectors %s are not %d finite numbers", left_out, vector.name, vector.dim)
    found_ND[rows[finite]] = unit(given_ND[finite])
    return found_ND


def _names(config: ContentConfig) -> set[str]:
    names = {"metadata_idf"} | (set(HEAD) if config.projection == "contrastive" else set())
    if config.encoder == "hashing":
        return names | {"text_idf"}
    return names | ({"projection"} if config.dim < MINILM_DIM else set())
