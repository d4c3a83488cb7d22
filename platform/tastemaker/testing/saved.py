"""What holds for everything that is saved as a config and tensors, whatever it is."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tastemaker.bundle.tensor_file import can_hold, file_parts, tensors_in
from tastemaker.models.packed import PackedModel, Savable


def assert_same(first: Savable, second: Savable) -> None:
    """Asserts that two models are the same to the last bit."""
    mine, other = first.tensors(), second.tensors()
    assert mine.keys() == other.keys(), "tensors differ in name"
    for name, values in mine.items():
        assert np.array_equal(values, other[name]), f"{name} differs between two fits of one seed"
    assert first.config_dict() == second.config_dict()


def written_and_read(packed: PackedModel) -> tuple[Mapping[str, Any], Mapping[str, np.ndarray]]:
    """Config and tensors as they come back from JSON and a bundle's tensor file; asserts that these can hold them."""
    tensors = {name: np.asarray(values) for name, values in packed.tensors().items()}
    for name, values in tensors.items():
        assert can_hold(values), f"{name}: safetensors holds no {values.dtype}"
        assert values.dtype.kind != "f" or np.isfinite(values).all(), f"{name} is not finite"
    content = np.frombuffer(b"".join(bytes(part) for part in file_parts(tensors)), np.uint8)
    return json.loads(json.dumps(packed.config_dict(), allow_nan=False)), tensors_in(content.copy())
