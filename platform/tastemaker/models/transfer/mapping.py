"""Maps from users' vectors in one domain to their vectors in another, learned from users whom both know well.

Shape letters: N users, D dimension of the source, E of the target, H hidden.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tastemaker.strict import Strict
from tastemaker.types import Float32


class LinearMapConfig(Strict):
    """Ridge regression with an intercept."""

    kind: Literal["linear"] = Field("linear", description="a matrix")
    penalty: float = Field(
        100.0, ge=0, description="on the squared weights, in users: what so many of them weigh"
    )


class NetworkMapConfig(Strict):
    """A perceptron with one hidden layer of tanh."""

    kind: Literal["network"] = Field("network", description="a perceptron")
    hidden: int = Field(128, ge=1, description="width of its hidden layer")
    epochs: int = Field(100, ge=1, description="passes over the users")
    batch_size: int = Field(128, ge=1, description="users of a step")
    learning_rate: float = Field(0.003, gt=0, description="step size of Adam")
    weight_decay: float = Field(1e-3, ge=0, description="decoupled weight decay")


MapConfig = Annotated[LinearMapConfig | NetworkMapConfig, Field(discriminator="kind")]


def fit_map(
    source_ND: Float32, target_NE: Float32, config: LinearMapConfig | NetworkMapConfig, seed: int
) -> dict[str, Float32]:
    """The arrays of the map that least squares finds."""
    if isinstance(config, LinearMapConfig):
        return _fit_linear(source_ND, target_NE, config)
    return _fit_network(source_ND, target_NE, config, seed)


def mapped(source_ND: Float32, arrays: Mapping[str, np.ndarray]) -> Float32:
    """(N, E) where users of the source are in the target."""
    layer = source_ND
    if "hidden.weight" in arrays:
        layer = np.tanh(layer @ arrays["hidden.weight"] + arrays["hidden.bias"])
    found_NE: Float32 = (layer @ arrays["weight"] + arrays["bias"]).astype(np.float32)
    return found_NE


def _fit_linear(source_ND: Float32, target_NE: Float32, config: LinearMapConfig) -> dict[str, Float32]:
    """The penalty is that of so many users of mean squared length, so that it does not depend on the vectors' units."""
    x_ND, y_NE = source_ND.astype(np.float64), target_NE.astype(np.float64)
    x_D, y_E = x_ND.mean(axis=0), y_NE.mean(axis=0)
    gram_DD = (x_ND - x_D).T @ (x_ND - x_D)
    unit = max(np.trace(gram_DD) / len(x_D) / len(x_ND), 1e-12)
    gram_DD += (config.penalty + 1e-6) * unit * np.eye(len(x_D))
    weight_DE = np.linalg.solve(gram_DD, (x_ND - x_D).T @ (y_NE - y_E))
    return {"weight": weight_DE.astype(np.float32), "bias": (y_E - x_D @ weight_DE).astype(np.float32)}


def _fit_network(
    source_ND: Float32, target_NE: Float32, config: NetworkMapConfig, seed: int
) -> dict[str, Float32]:
    """Learned between vectors of unit variance; the scales are then part of the weights."""
    import torch

    draws = np.random.default_rng((seed, 5))
    (num, dim), width = source_ND.shape, target_NE.shape[1]
    shapes = {"hidden.weight": (dim, config.hidden), "hidden.bias": (config.hidden,)}
    shapes |= {"weight": (config.hidden, width), "bias": (width,)}
    weights = {
        name: torch.from_numpy(
            draws.normal(0, np.sqrt(2 / sum(shape)) * (len(shape) > 1), shape).astype(np.float32)
        ).requires_grad_()
        for name, shape in shapes.items()
    }
    x, y = _Scale(source_ND), _Scale(target_NE)
    x_ND, y_NE = torch.from_numpy(x.scaled), torch.from_numpy(y.scaled)
    optimizer = torch.optim.AdamW(
        weights.values(), config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    for _ in range(config.epochs):
        order = torch.from_numpy(draws.permutation(num))
        for at in range(0, num, config.batch_size):
            rows = order[at : at + config.batch_size]
            hidden = torch.tanh(x_ND[rows] @ weights["hidden.weight"] + weights["hidden.bias"])
            loss = (hidden @ weights["weight"] + weights["bias"] - y_NE[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    found = {name: weight.detach().numpy() for name, weight in weights.items()}
    first = found["hidden.weight"] / x.deviation
    return {
        "hidden.weight": first.astype(np.float32),
        "hidden.bias": (found["hidden.bias"] - x.mean_D @ first).astype(np.float32),
        "weight": (found["weight"] * y.deviation).astype(np.float32),
        "bias": (found["bias"] * y.deviation + y.mean_D).astype(np.float32),
    }


class _Scale:
    """Vectors around their mean, of unit variance over all dimensions together."""

    def __init__(self, vector_ND: Float32) -> None:
        self.mean_D = vector_ND.mean(axis=0)
        self.deviation = max(float((vector_ND - self.mean_D).std()), 1e-9)
        self.scaled: Float32 = ((vector_ND - self.mean_D) / self.deviation).astype(np.float32)
