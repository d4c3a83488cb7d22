import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tastemaker.bundle.tensor_file import TensorLayout, can_hold, file_parts, map_tensors
from tastemaker.errors import IntegrityError

arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float16, np.int64, np.uint8, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)
tensors = st.dictionaries(st.text("abc.é", min_size=1, max_size=6), arrays, max_size=5)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tensors") / "t.safetensors"


@given(tensors)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_what_safetensors_and_we_read(path, given_tensors):
    path.write_bytes(b"".join(bytes(part) for part in file_parts(given_tensors)))
    for read in (safetensors.numpy.load_file(path), map_tensors(path)):
        assert read.keys() == given_tensors.keys()
        for name, value in given_tensors.items():
            assert read[name].dtype == value.dtype
            np.testing.assert_array_equal(read[name], value)


def test_long_tensors_come_in_parts_and_all_of_them():
    long = np.arange(3_000_001, dtype=np.float32)
    parts = list(file_parts({"long": long, "short": np.ones(2, np.int64)}))
    assert max(len(part) for part in parts) <= 2**22
    back = safetensors.numpy.load(b"".join(bytes(part) for part in parts))
    np.testing.assert_array_equal(back["long"], long)


def test_a_layout_says_where_a_row_goes_on():
    layout = TensorLayout({"b": (np.dtype("float32"), (3, 4)), "a": (np.dtype("int64"), (2,))})
    assert layout.names == ["a", "b"]  # the wider type first
    assert layout.offset("b") == layout.offset("a") + 16
    assert layout.offset("b", 2, 1) == layout.offset("b") + (2 * 4 + 1) * 4
    assert layout.size == layout.offset("b") + 48


def test_writing_to_what_was_mapped_leaves_the_file(path):
    path.write_bytes(b"".join(bytes(part) for part in file_parts({"t": np.zeros(4, np.float32)})))
    map_tensors(path)["t"][:] = 1
    assert not map_tensors(path)["t"].any()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-1], "is '.* bytes', must be .* bytes"),
        (lambda content: content + b"x", "is '.* bytes', must be .* bytes"),
        (lambda content: b"no tensors at all", "is no safetensors file"),
        (lambda content: content[:8] + b"[" + content[9:], "is no safetensors file"),
    ],
)
def test_a_damaged_file_is_refused(path, damage, words):
    content = b"".join(bytes(part) for part in file_parts({"t": np.zeros(4, np.float32)}))
    path.write_bytes(damage(content))
    with pytest.raises(IntegrityError, match=words):
        map_tensors(path)


def test_text_and_objects_have_no_place():
    assert can_hold(np.zeros(1, np.float16))
    assert not can_hold(np.array(["a"]))
    assert not can_hold(np.array([None]))
