"""How a model of sequences is fitted: epochs, step sizes, when to stop, and how a fit that was broken off goes on.

An epoch is a function of the seed, its number and what was learned before it. So a fit that goes on from the end of an epoch
gives what it would have given without a break.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
import safetensors
import torch
from pydantic import Field
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn

from tastemaker.errors import TrainingError
from tastemaker.home import write_bytes
from tastemaker.models.seeding import seeded
from tastemaker.models.sequence.windows import Windows
from tastemaker.strict import Strict

CHECKPOINT: Final = "sequence.safetensors"
_MODEL, _BEST, _MOMENTS = "model.", "best.", ("exp_avg", "exp_avg_sq", "step")
log = logging.getLogger(__name__)


class SequenceFitConfig(Strict):
    """Adam over all parameters, tables included."""

    LATER: ClassVar = frozenset({"decay"})

    epochs: int = Field(100, ge=1, description="passes over the histories, at most")
    patience: int | None = Field(
        5,
        ge=1,
        description="validations without a better one that end the fit; empty: no held-out items, all epochs",
    )
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    validation_users: int = Field(10_000, ge=1, description="users that validation asks about, at most")
    batch_size: int = Field(128, ge=1, description="histories of a step")
    learning_rate: float = Field(0.001, gt=0, description="step size")
    warmup_steps: int = Field(0, ge=0, description="steps over which the step size rises linearly")
    decay: Literal["none", "linear"] = Field(
        "none", description="whether the step size falls, evenly to nothing at the end of all epochs"
    )
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of all parameters")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient; empty: any")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="arithmetic of products; sums are fp32")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where it is fitted; it serves on the CPU")


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch reported; `ndcg_at_10` where it was validated."""

    number: int
    loss: float
    seconds: float
    ndcg_at_10: float | None = None


@dataclass
class Fit:
    """A fit under way or done. `best_epoch` counts from 1."""

    best_epoch: int = 0
    best_ndcg: float = -1.0
    curve: tuple[Epoch, ...] = ()

    @property
    def num_stale(self) -> int:
        """Validations since the best."""
        return sum(1 for epoch in self.curve[self.best_epoch :] if epoch.ndcg_at_10 is not None)


LossOf = Callable[[np.ndarray, np.random.Generator], Tensor]
"""Of a batch's windows."""


def fit_encoder(
    encoder: nn.Module,
    windows: Windows,
    loss_of: LossOf,
    validate: Callable[[], float] | None,
    config: SequenceFitConfig,
    seed: int,
    checkpoints: Path | None = None,
    key: Mapping[str, Any] | None = None,
) -> Fit:
    """Fits the encoder in place and leaves it as it was at its best validation, or at the end without any.

    Args:
        encoder: What learns.
        windows: What it learns from.
        loss_of: Its loss on some windows.
        validate: How good it is now, larger is better; unset: it is fitted for all epochs.
        config: How.
        seed: Of all luck.
        checkpoints: Folder that keeps the end of the newest epoch; a fit that finds one there goes on from it.
        key: What else the fit depends on: a checkpoint of another is refused.

    Raises:
        TrainingError: The loss is not a number, or the checkpoint is of another fit.
    """
    optimizer = torch.optim.Adam(
        encoder.parameters(), config.learning_rate, weight_decay=config.weight_decay,
        decoupled_weight_decay=True, fused=True,
    )  # fmt: skip
    best = _copied(encoder)
    fit = Fit()
    kept = None if checkpoints is None else _Kept(checkpoints / CHECKPOINT, windows, config, seed, key or {})
    if kept is not None:
        fit, best = kept.load(encoder, optimizer) or (fit, best)
    while len(fit.curve) < config.epochs:
        if validate is not None and config.patience is not None and fit.num_stale >= config.patience:
            break
        number, began = len(fit.curve) + 1, time.perf_counter()
        loss = _epoch(encoder, windows, loss_of, optimizer, config, seed, number)
        found = None
        if validate is not None and (number % config.validate_every == 0 or number == config.epochs):
            encoder.eval()
            found = validate()
        fit.curve = (*fit.curve, Epoch(number, loss, time.perf_counter() - began, found))
        log.info("epoch %d: loss %.4f, ndcg@10 %s", number, loss, found)
        if validate is None or (found is not None and found > fit.best_ndcg):
            fit.best_epoch, fit.best_ndcg = number, -1.0 if found is None else found
            best = _copied(encoder)
        if kept is not None:
            kept.save(encoder, optimizer, fit, best)
    encoder.load_state_dict(best)
    encoder.eval()
    return fit


def _epoch(
    encoder: nn.Module,
    windows: Windows,
    loss_of: LossOf,
    optimizer: torch.optim.Optimizer,
    config: SequenceFitConfig,
    seed: int,
    number: int,
) -> float:
    """One pass; the mean loss."""
    encoder.train()
    generator = np.random.default_rng((seed, number))
    batches = list(windows.batches(config.batch_size, generator))
    total = 0.0
    with seeded(seed, number):
        for place, rows_B in enumerate(batches):
            step = (number - 1) * len(batches) + place
            for group in optimizer.param_groups:
                group["lr"] = step_size(config, step, config.epochs * len(batches))
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(config.device, torch.bfloat16, enabled=config.precision == "bf16"):
                loss = loss_of(rows_B, generator)
            loss.backward()  # type: ignore[no-untyped-call]
            if config.clip_norm is not None:
                nn.utils.clip_grad_norm_(encoder.parameters(), config.clip_norm)
            optimizer.step()
            total += float(loss.detach())
    mean = total / max(1, len(batches))
    if not np.isfinite(mean):
        raise TrainingError(
            f"loss of epoch {number}", value=mean, mend="lower fit.learning_rate or set fit.clip_norm"
        )
    return mean


def step_size(config: SequenceFitConfig, step: int, num_steps: int) -> float:
    """Of a step, counted from 0, of a fit of so many steps if none stops it.

    >>> config = SequenceFitConfig(learning_rate=0.1, warmup_steps=2, decay="linear")
    >>> [round(step_size(config, step, 10), 3) for step in (0, 1, 2, 5, 9)]
    [0.05, 0.09, 0.08, 0.05, 0.01]
    """
    rising = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = 1.0 if config.decay == "none" else 1.0 - step / num_steps
    return config.learning_rate * rising * left


def _copied(encoder: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in encoder.state_dict().items()}


class _Kept:
    """The checkpoint of a fit: one file, replaced at once at the end of each epoch."""

    def __init__(
        self, path: Path, windows: Windows, config: SequenceFitConfig, seed: int, key: Mapping[str, Any]
    ) -> None:
        self._path = path
        digest = hashlib.sha256()
        # More epochs or patience may go on from fewer, where steps do not depend on how many there are.
        free = {"patience", "device"} | ({"epochs"} if config.decay == "none" else set())
        fixed = config.model_dump(mode="json", exclude=free)
        digest.update(json.dumps([fixed, seed, dict(key)], sort_keys=True, default=str).encode())
        for array in (windows.item_N, windows.begin_W, windows.length_W):
            digest.update(np.ascontiguousarray(array).data)
        self._digest = digest.hexdigest()

    def save(
        self, encoder: nn.Module, optimizer: torch.optim.Optimizer, fit: Fit, best: Mapping[str, Tensor]
    ) -> None:
        tensors = {_MODEL + name: value for name, value in encoder.state_dict().items()}
        tensors |= {_BEST + name: value for name, value in best.items()}
        for name, parameter in encoder.named_parameters():
            state = optimizer.state[parameter]
            tensors |= {f"{moment}.{name}": state[moment] for moment in _MOMENTS}
        said = {"best_epoch": fit.best_epoch, "best_ndcg": fit.best_ndcg, "digest": self._digest}
        said["curve"] = [asdict(epoch) for epoch in fit.curve]
        whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(self._path, as_safetensors(whole, {"fit": json.dumps(said)}))

    def load(
        self, encoder: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[Fit, dict[str, Tensor]] | None:
        """Puts encoder and optimizer where they were; None where nothing was kept."""
        if not self._path.exists():
            return None
        with safetensors.safe_open(self._path, "pt") as file:
            said = json.loads(file.metadata()["fit"])
            if said["digest"] != self._digest:
                raise TrainingError(
                    f"checkpoint {self._path}", value="of another fit", limit="of this recipe on this data",
                    mend="remove it to begin anew",
                )  # fmt: skip
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        device = next(encoder.parameters()).device
        encoder.load_state_dict(_under(_MODEL, found))
        for name, parameter in encoder.named_parameters():
            state = {moment: found[f"{moment}.{name}"] for moment in _MOMENTS}
            optimizer.state[parameter] = {moment: value.to(device) for moment, value in state.items()}
        curve = tuple(Epoch(**epoch) for epoch in said["curve"])
        return Fit(said["best_epoch"], said["best_ndcg"], curve), _under(_BEST, found)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
