"""Texts as vectors by their words, without a model: feature hashing with idf weights.

A word goes to a few coordinates with signs, all by its hash [Weinberger et al. 2009], so that two texts' product is, but
for chance of about 1/sqrt(D), that of their bags of words. Not for meaning: two words are alike or they are not.

Shape letters: N texts, T distinct words, D dimension, H coordinates of a word, V buckets of the idf weights.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, Self

import numpy as np
import scipy.sparse as sp

from tastemaker.errors import CompatibilityError
from tastemaker.types import Float32, Int64

VERSION: Final = "words-1"
"""Of the hash rule and of what a word is: another number makes other vectors."""
NUM_BUCKETS: Final = 1 << 15
_COORDINATES: Final = 8
_AT_ONCE: Final = 8192
_WORD: Final = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text, case folded.

    >>> words_of("Dr. Strangelove, or: HOW I…")
    ['dr', 'strangelove', 'or', 'how', 'i']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class HashedWords:
    """Vectors of bags of words.

    Args:
        dim: Length of a vector.
        idf_V: Weight of the words of each bucket.
    """

    def __init__(self, dim: int, idf_V: Float32) -> None:
        if idf_V.shape != (NUM_BUCKETS,):
            raise CompatibilityError(
                "idf weights", value=idf_V.shape, limit=f"({NUM_BUCKETS},)", mend="train again"
            )
        self.dim, self.idf_V = dim, idf_V

    @classmethod
    def fit(cls, texts: Iterable[Sequence[str]], dim: int) -> Self:
        """Weights ln((1 + texts) / (1 + texts with the word)) + 1; unknown words have the largest.

        Args:
            texts: Words of each.
            dim: Length of a vector.
        """
        count_V = np.zeros(NUM_BUCKETS, np.int64)
        num_texts = 0
        bucket_of: dict[str, int] = {}
        for words in texts:
            distinct = set(words)
            for word in distinct - bucket_of.keys():
                bucket_of[word] = int(_hashes([word])[0, 0] % NUM_BUCKETS)
            count_V[list({bucket_of[word] for word in distinct})] += 1
            num_texts += bool(distinct)
        idf_V = np.log((1 + num_texts) / (1 + count_V)) + 1
        return cls(dim, idf_V.astype(np.float32))

    def encode(self, texts: Sequence[Sequence[str]]) -> Float32:
        """Unit vectors (N, D); zeros for a text without words. A word counts once."""
        out_ND = np.zeros((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), _AT_ONCE):
            block = texts[start : start + _AT_ONCE]
            out_ND[start : start + len(block)] = self._block(block)
        return out_ND

    def _block(self, texts: Sequence[Sequence[str]]) -> Float32:
        bags = [sorted(set(words)) for words in texts]
        place = {word: t for t, word in enumerate(dict.fromkeys(word for bag in bags for word in bag))}
        if not place:
            return np.zeros((len(texts), self.dim), np.float32)
        hash_TH = _hashes(list(place))
        column_TH = (hash_TH[:, 1:] >> 1) % self.dim
        sign_TH = 1.0 - 2.0 * (hash_TH[:, 1:] & 1)
        row_T = np.repeat(np.arange(len(place)), _COORDINATES)
        weight_T = self.idf_V[hash_TH[:, 0] % NUM_BUCKETS]
        value = (sign_TH * weight_T[:, None]).ravel()
        words_TD = sp.csr_matrix((value, (row_T, column_TH.ravel())), shape=(len(place), self.dim))
        indices = np.array([place[word] for bag in bags for word in bag])
        offsets = np.concatenate([[0], np.cumsum([len(bag) for bag in bags])])
        bags_NT = sp.csr_matrix((np.ones(len(indices)), indices, offsets), shape=(len(bags), len(place)))
        return unit((bags_NT @ words_TD).toarray().astype(np.float32))


def unit(vector_ND: Float32) -> Float32:
    """The vectors at length 1; zeros stay."""
    length_N = np.linalg.norm(vector_ND, axis=1, keepdims=True)
    scaled_ND: Float32 = (vector_ND / np.where(length_N > 0, length_N, 1)).astype(np.float32)
    return scaled_ND


def _hashes(words: Sequence[str]) -> Int64:
    """Numbers (T, 1 + H) of 32 bits: the same word has the same on every machine."""
    size = 4 * (1 + _COORDINATES)
    joined = b"".join(hashlib.blake2b(word.encode(), digest_size=size).digest() for word in words)
    return np.frombuffer(joined, "<u4").reshape(len(words), -1).astype(np.int64)
