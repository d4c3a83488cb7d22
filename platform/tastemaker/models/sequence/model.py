"""What all models of sequences are as recommenders: a state of the history, and items that it is multiplied by.

Shape letters: B askers or windows, V tokens, N negatives, U users, I catalogue, L history, D dimension.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.models.log import Askers, Log, known_rows
from tastemaker.models.recommender import Recommender
from tastemaker.models.seeding import seeded
from tastemaker.models.sequence.encoder import SequenceEncoder
from tastemaker.models.sequence.fitting import Fit, SequenceFitConfig, fit_encoder
from tastemaker.models.sequence.losses import (
    LossConfig,
    linear_cross_entropy,
    own_negatives_bce,
    sampled_cross_entropy,
    shared_negatives_bce,
)
from tastemaker.models.sequence.token_batch import TokenBatch, pack
from tastemaker.models.sequence.windows import HeldOut, Stretches, Windows
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int32, Int64

_HISTORIES_AT_ONCE = 256
_MOST_FOR_NOBODY = 10_000
NOBODY_VECTOR, BEST_EPOCH = "nobody", "best_epoch"
"""Names among the tensors of what does not lie in the encoder."""


class SequenceConfig(Strict):
    """What all models of sequences have."""

    seed: int = Field(0, ge=0, description="of everything that is drawn")
    dim: int = Field(64, ge=1, description="dimension of items and states")
    max_length: int = Field(50, ge=1, description="newest items of a history that are read")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of units dropped in training")
    stretches: Stretches = Field(
        "all", description="what of a longer history is learned from: its newest items, or all, cut in pieces"
    )
    loss: LossConfig = Field(default_factory=LossConfig, description="what the next item is set against")
    fit: SequenceFitConfig = Field(default_factory=SequenceFitConfig, description="how it is fitted")


class SequenceModel(Recommender):
    """A fitted encoder. Whoever has no history is asked for by the mean of the users' states.

    Args:
        config: Of its kind.
        encoder: Fitted.
        nobody_D: Stands for whoever has no history.
        best_epoch: How many epochs were best.
    """

    scores_are_products = True

    config: SequenceConfig
    fitted: Fit | None = None
    """How the fit went; not saved."""

    def __init__(
        self, config: SequenceConfig, encoder: SequenceEncoder, nobody_D: Float32, best_epoch: int
    ) -> None:
        self.config, self.encoder = config, encoder.eval()
        self._nobody_D, self.best_epoch = nobody_D, best_epoch
        self.num_items = encoder.items.num_embeddings

    @classmethod
    @abstractmethod
    def make_encoder(cls, num_items: int, config: Any) -> SequenceEncoder:
        """An encoder that has learned nothing."""

    @abstractmethod
    def loss(self, windows: Windows, rows_B: Int64, generator: np.random.Generator) -> Tensor:
        """The loss of some windows, of which gradients can be had."""

    @classmethod
    def fit(cls, log: Log, config: Any, checkpoints: Path | None = None) -> Self:
        """See `Recommender.fit`.

        The newest item of each user who has three is held out where the config says how patient to be: the best epoch on
        those is kept.

        Args:
            log: What to learn from; values count nothing.
            config: Of its kind.
            checkpoints: Folder where a fit that was broken off goes on; unset, none is kept.
        """
        found: SequenceConfig = config
        length_U, held_out = np.diff(log.offsets), None
        if found.fit.patience is not None:
            chosen = np.random.default_rng((found.seed, 0))
            held_out, length_U = HeldOut.of(log, found.fit.validation_users, chosen)
        windows = Windows.of(log, length_U, found.max_length, found.stretches)
        if not len(windows):
            raise DataError(
                "histories with an item that came next", value=0, limit="1 or more",
                mend="give events of users who took more than one item",
            )  # fmt: skip
        with seeded(found.seed):
            encoder = cls.make_encoder(log.num_items, found).to(found.fit.device)
        model = cls(found, encoder, np.zeros(encoder.item_table().shape[1], np.float32), 0)
        model._learn(windows, held_out, log, checkpoints)
        return model

    @classmethod
    def resume_fit(cls, log: Log, config: Any, checkpoints: Path) -> Self:
        """See `Recommender.resume_fit`: goes on after the last whole epoch."""
        return cls.fit(log, config, checkpoints)

    def _learn(self, windows: Windows, held_out: HeldOut | None, log: Log, checkpoints: Path | None) -> None:
        def validate() -> float:
            assert held_out is not None
            return held_out.ndcg(self._states(held_out.histories), self.item_vectors())

        fitted = fit_encoder(
            self.encoder, windows, lambda rows_B, generator: self.loss(windows, rows_B, generator),
            validate if held_out else None, self.config.fit, self.config.seed, checkpoints,
            {"kind": self.kind} | self.config.model_dump(mode="json", exclude={"fit"}),
        )  # fmt: skip
        self.encoder.to("cpu")
        self.fitted, self.best_epoch = fitted, fitted.best_epoch
        self.losses = tuple(epoch.loss for epoch in fitted.curve)
        some = np.flatnonzero(np.diff(log.offsets))
        if len(some) > _MOST_FOR_NOBODY:
            drawn = np.random.default_rng((self.config.seed, 0))
            some = np.sort(drawn.choice(some, _MOST_FOR_NOBODY, replace=False))
        known = Askers.known(log, some.astype(np.int32))
        self._nobody_D = self._states(known.histories).mean(axis=0)

    def refit_config(self) -> SequenceConfig:
        """The config for a fit on more data: as many epochs as were best, and nothing held out."""
        fit = self.config.fit.model_copy(update={"epochs": max(1, self.best_epoch), "patience": None})
        return self.config.model_copy(update={"fit": fit})

    def scores(self, askers: Askers) -> Float32:
        """See `Recommender.scores`."""
        score_BI: Float32 = self.user_vectors(askers) @ self.item_vectors().T
        return score_BI

    def item_vectors(self) -> Float32:
        """See `Recommender.item_vectors`."""
        table_ID: Float32 = self.encoder.item_table().detach().cpu().numpy()
        return table_ID

    def user_vectors(self, askers: Askers) -> Float32:
        """See `Recommender.user_vectors`: the states of the newest tokens."""
        known = [known_rows(history_L, self.num_items) for history_L in askers.histories]
        has_B = np.array([len(history_L) > 0 for history_L in known], bool)
        vector_BD = np.tile(self._nobody_D, (len(askers), 1))
        if has_B.any():
            vector_BD[has_B] = self._states([history_L for history_L in known if len(history_L)])
        return vector_BD

    @torch.inference_mode()
    def _states(self, histories: Sequence[Int32]) -> Float32:
        """States (B, D) of histories of known items, none empty."""
        order_B = np.argsort([-min(len(h), self.config.max_length) for h in histories], kind="stable")
        state_BD = np.empty((len(histories), self.encoder.item_table().shape[1]), np.float32)
        for begin in range(0, len(histories), _HISTORIES_AT_ONCE):
            rows = order_B[begin : begin + _HISTORIES_AT_ONCE]
            item_V, batch = self._packed([histories[row] for row in rows])
            state_BD[rows[batch.sequence_B]] = self.encoder.last(item_V, batch).float().cpu().numpy()
        return state_BD

    def _packed(self, histories: Sequence[Int32]) -> tuple[Tensor, TokenBatch]:
        """Histories as the encoder reads them to say what comes next."""
        flat, batch = pack(histories, self.config.max_length, self._device)
        return self._items(flat, batch.token_V), batch

    def _items(self, flat_N: Int32, token_V: Tensor) -> Tensor:
        return torch.from_numpy(flat_N[token_V.cpu().numpy()].astype(np.int64)).to(self._device)

    @property
    def _device(self) -> torch.device:
        return self.encoder.items.weight.device

    def tensors(self) -> Mapping[str, np.ndarray]:
        """See `Recommender.tensors`."""
        weights = {name: value.detach().cpu().numpy() for name, value in self.encoder.state_dict().items()}
        return weights | {NOBODY_VECTOR: self._nobody_D, BEST_EPOCH: np.array([self.best_epoch], np.int64)}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`; the given arrays become the weights, and stay where they lie."""
        parsed: Any = cls.Config.parse(config, f"model {cls.kind}")
        try:
            with torch.device("meta"):
                encoder = cls.make_encoder(len(tensors["items.weight"]), parsed)
            state = {
                name: torch.from_numpy(np.require(tensors[name], requirements="W"))
                for name in encoder.state_dict()
            }
            encoder.load_state_dict(state, assign=True)
            return cls(parsed, encoder, tensors[NOBODY_VECTOR], int(tensors[BEST_EPOCH][0]))
        except (KeyError, RuntimeError) as error:
            raise CompatibilityError(
                f"weights of a model of kind {cls.kind}", value=str(error).splitlines()[-1].strip(),
                mend="use the weights that were fitted with this config",
            ) from error  # fmt: skip


class NextItemModel(SequenceModel):
    """A model that learns, at each token of a window, the item that came next."""

    def loss(self, windows: Windows, rows_B: Int64, generator: np.random.Generator) -> Tensor:
        """See `SequenceModel.loss`."""
        batch = TokenBatch.of(windows.begin_W[rows_B], windows.length_W[rows_B], self._device)
        item_V = self._items(windows.item_N, batch.token_V)
        next_V = self._items(windows.item_N, batch.token_V + 1)
        hidden_VD = self.encoder(item_V, batch)
        user_B = windows.user_W[rows_B][batch.sequence_B]
        return self._loss(hidden_VD, next_V, batch, user_B, windows, generator)

    def _loss(
        self,
        hidden_VD: Tensor,
        next_V: Tensor,
        batch: TokenBatch,
        user_B: Int64,
        windows: Windows,
        generator: np.random.Generator,
    ) -> Tensor:
        config, items = self.config.loss, self.encoder.items
        if config.num_negatives is None:
            if self.config.fit.precision == "bf16":
                hidden_VD = hidden_VD.bfloat16()
            return linear_cross_entropy(hidden_VD, items.weight, next_V)
        num = config.num_negatives
        if config.kind == "softmax":
            drawn_N = torch.from_numpy(generator.integers(0, self.num_items, num)).to(self._device)
            return sampled_cross_entropy(
                hidden_VD, items(next_V), next_V, items(drawn_N), drawn_N, self.num_items
            )
        beta = config.beta(self.num_items)
        if config.shared:
            drawn_BN = torch.from_numpy(windows.draw(user_B, num, generator)).to(self._device)
            return shared_negatives_bce(hidden_VD, items(next_V), items(drawn_BN), batch, beta)
        user_V = np.repeat(user_B, batch.length_B.cpu().numpy())
        drawn_VN = torch.from_numpy(windows.draw(user_V, num, generator)).to(self._device)
        return own_negatives_bce(hidden_VD, items(next_V), items(drawn_VN), beta)
