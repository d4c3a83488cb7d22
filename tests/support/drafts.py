"""Experiments that are set up and not begun, of two bundles."""

from typing import Any

from tastemaker.experiments.definition import Experiment, Fixed, Variant

VARIANTS = (Variant(name="a", alias="champion"), Variant(name="b", alias="challenger"))


def experiment(name: str = "exp", **fields: Any) -> Experiment:
    """Half for each variant, but for what `fields` say."""
    defaults = {
        "hypothesis": "h", "salt": "s", "variants": VARIANTS, "allocation": Fixed(weights=(0.5, 0.5)), "state": "draft",
    }  # fmt: skip
    return Experiment(name=name, **defaults | fields)
