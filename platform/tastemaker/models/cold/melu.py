"""MeLU: a model that is learned so that a few steps on what a new person took make it theirs.

Shape letters: U users, I items, B people, S items that a person took, Q items asked about, M others, F features of people, C content
features, E dimension.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tastemaker.errors import DataError, TrainingError
from tastemaker.features.content import ContentConfig
from tastemaker.models.cold.attributes import Attributes
from tastemaker.models.cold.item_content import ItemContent
from tastemaker.models.cold.melu_network import Adapting, ItemEmbedding, Items, MeluNetwork
from tastemaker.models.cold.passes import batches
from tastemaker.models.log import Askers, Log, known_rows, newest_places
from tastemaker.models.recommender import Recommender
from tastemaker.models.seeding import seeded
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int64

_SCORED_PEOPLE = 16
_UNTOLD = 0.1


class MeluFitConfig(Strict):
    """The fit over people, each of whom is a task."""

    epochs: int = Field(20, ge=1, description="passes over the users, of 8 steps at least")
    batch_users: int = Field(32, ge=1, description="users of a step")
    num_asked: int = Field(
        10, ge=1, description="items of a user, beside those adapted to, that the step is judged by"
    )
    learning_rate: float = Field(0.003, gt=0, description="step size of Adam over all people")
    own_dropout: float = Field(
        0.3, ge=0, lt=1, description="share of times that an item is known by its content alone"
    )


class MeluConfig(Strict):
    """MeLU."""

    content: ContentConfig = Field(
        default_factory=ContentConfig, description="content vectors of items, and whether they are projected"
    )
    dim: int = Field(32, ge=1, description="length of the embeddings of people and of items")
    hidden: int = Field(64, ge=1, description="width of the decision layers")
    max_support: int = Field(5, ge=1, description="newest items of a history that the model adapts to")
    num_others: int = Field(64, ge=1, description="items drawn alike, from which those taken are told")
    steps: int = Field(2, ge=0, description="steps down the loss of a person; 0 adapts to nobody")
    rate: float = Field(0.1, gt=0, description="size of such a step")
    first_order: bool = Field(
        False, description="whether the fit takes the direction of these steps as given: cheaper"
    )
    fit: MeluFitConfig = Field(default_factory=MeluFitConfig, description="how it is learned")
    seed: int = Field(0, ge=0, description="start of the weights, tasks and draws")

    @property
    def adapting(self) -> Adapting:
        """How decision layers adapt."""
        return Adapting(self.steps, self.rate, self.first_order)


class Melu(Recommender):
    """A preference estimator whose decision layers adapt to one to five items of a new person [Lee et al. 2019].

    Departures: it learns from what was taken, by the chance of an item taken among others drawn alike, not from stars by squared
    error; scores begin at the logarithm of how often an item was taken, that of the mean item where nobody did; beside its content an
    item that somebody took has an embedding of its own, left out at times in the fit.
    """

    kind = "melu"
    Config: ClassVar[type[Strict]] = MeluConfig
    needs_history, reads_attributes = False, True

    def __init__(
        self, config: MeluConfig, network: MeluNetwork, attributes: Attributes, items: Items, others_M: Tensor
    ) -> None:
        self.config: MeluConfig = config
        self.num_items, self._network, self._attributes = len(items.prior), network, attributes
        self._items, self._others_M = items, others_M

    @classmethod
    def fit(cls, log: Log, config: MeluConfig) -> Self:
        """See `Recommender.fit`.

        Raises:
            DataError: Nobody took two items, or the log has no table of items.
        """
        tasks = _Tasks(log, config)
        if not len(tasks):
            raise DataError(
                "nobody in the log took two items, one to adapt to and one to be judged by",
                mend="import events",
            )
        content_IC = torch.from_numpy(ItemContent.fit(log, config.content, cls.kind)[1])
        attributes, prior_I = Attributes.fit(log.users), torch.from_numpy(_prior(log))
        told_UF = _told(attributes, Askers.known(log))
        with seeded(config.seed):
            network = MeluNetwork(told_UF.shape[1], config.dim, config.hidden)
            embedding = ItemEmbedding(content_IC.shape[1], log.num_items, config.dim)
        learner = _Learner(network, embedding, content_IC, prior_I, torch.from_numpy(told_UF))
        losses = learner.fit(tasks, config)
        others_M = torch.from_numpy(tasks.others(np.random.default_rng((config.seed, 4))))
        with torch.no_grad():
            taken_I = torch.from_numpy(
                (np.bincount(log.item_N, minlength=log.num_items) > 0).astype(np.float32)
            )
            embedded_IE = embedding(content_IC, torch.arange(log.num_items), taken_I)
        model = cls(config, network, attributes, Items(embedded_IE, prior_I), others_M)
        model.losses = tuple(losses)
        return model

    def scores(self, askers: Askers) -> Float32:
        """See `Recommender.scores`."""
        score_BI = np.empty((len(askers), self.num_items), np.float32)
        for at in range(0, len(askers), _SCORED_PEOPLE):
            part = askers[at : at + _SCORED_PEOPLE]
            score_BI[at : at + len(part)] = self._some(part)
        return score_BI

    def _some(self, askers: Askers) -> Float32:
        histories = [
            newest_places(known_rows(history_L, self.num_items))[0] for history_L in askers.histories
        ]
        row_BS, is_taken_BS = _padded(
            [history_L[-self.config.max_support :] for history_L in histories], self.config.max_support
        )
        told_BF = torch.from_numpy(_told(self._attributes, askers))
        with torch.no_grad():
            person_BE, others = self._network.people(told_BF), self._items.at(self._others_M)
            taken = self._items.at(row_BS)
            weights = self._network.adapted(person_BE, taken, is_taken_BS, others, self.config.adapting)
            found: Float32 = self._network.scores_of_each(weights, person_BE, self._items).numpy()
        return found

    def config_dict(self) -> dict[str, Any]:
        """See `Recommender.config_dict`."""
        return {"config": super().config_dict(), "attributes": self._attributes.config_dict()}

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        network = {f"network.{name}": value.numpy() for name, value in self._network.state_dict().items()}
        told = {f"attributes.{name}": value for name, value in self._attributes.tensors().items()}
        items = {"items": self._items.embedded.numpy(), "prior": self._items.prior.numpy()}
        return items | {"others": self._others_M.numpy()} | network | told

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        parsed = MeluConfig.parse(config["config"], f"model {cls.kind}")
        told = {name: tensors[f"attributes.{name}"] for name in ("mean", "scale")}
        attributes = Attributes.from_state(config["attributes"], told)
        network = MeluNetwork(attributes.dim + 1, parsed.dim, parsed.hidden)
        state = {
            name: torch.from_numpy(np.array(tensors[f"network.{name}"])) for name in network.state_dict()
        }
        network.load_state_dict(state, assign=True)
        embedded_IE, prior_I, others_M = (
            torch.from_numpy(np.array(tensors[name])) for name in ("items", "prior", "others")
        )
        return cls(parsed, network, attributes, Items(embedded_IE, prior_I), others_M)


@dataclass(frozen=True, slots=True)
class _Step:
    """Some users, what each took that is adapted to, what each is judged by, and what others there are."""

    user_B: Int64
    support_BS: Tensor
    is_support_BS: Tensor
    asked_BQ: Tensor
    is_asked_BQ: Tensor
    others_M: Tensor


class _Tasks:
    """Draws steps from the users who took two items or more."""

    def __init__(self, log: Log, config: MeluConfig) -> None:
        self._config = config
        self._items = [np.unique(history_L) for history_L in log.histories()]
        self._user_U = np.array([user for user, items in enumerate(self._items) if len(items) > 1], np.int64)
        self._taken_I = np.unique(log.item_N).astype(np.int64)

    def __len__(self) -> int:
        return len(self._user_U)

    def others(self, draws: np.random.Generator) -> Int64:
        """(M,) of the items that somebody took, each alike."""
        return self._taken_I[draws.integers(len(self._taken_I), size=self._config.num_others)]

    def epoch(self, draws: np.random.Generator) -> Iterator[_Step]:
        """The users of a pass: of each none to `max_support` of the items are adapted to, up to `num_asked` of the rest are asked about."""
        most, asked = self._config.max_support, self._config.fit.num_asked
        for user_B in batches(self._user_U, self._config.fit.batch_users, draws):
            mixed = [draws.permutation(self._items[user]) for user in user_B]
            cuts = [int(draws.integers(0, min(most, len(items) - 1) + 1)) for items in mixed]
            support = _padded([items[:cut] for items, cut in zip(mixed, cuts, strict=True)], most)
            judged = _padded(
                [items[cut : cut + asked] for items, cut in zip(mixed, cuts, strict=True)], asked
            )
            yield _Step(user_B, *support, *judged, torch.from_numpy(self.others(draws)))


class _Learner:
    """Learns the network and the embedding of items, which only the fit knows in parts."""

    def __init__(
        self,
        network: MeluNetwork,
        embedding: ItemEmbedding,
        content_IC: Tensor,
        prior_I: Tensor,
        told_UF: Tensor,
    ) -> None:
        self._network, self._embedding, self._content_IC = network, embedding, content_IC
        self._prior_I, self._told_UF = prior_I, told_UF

    def fit(self, tasks: _Tasks, config: MeluConfig) -> list[float]:
        """Fits in place; gives each epoch's mean loss of people after they were adapted to [Lee et al. 2019, global update].

        Raises:
            TrainingError: A loss is not a number.
        """
        draws, losses = np.random.default_rng((config.seed, 1)), []
        weights = [*self._network.parameters(), *self._embedding.parameters()]
        optimizer = torch.optim.Adam(weights, config.fit.learning_rate)
        for _ in range(config.fit.epochs):
            total, num = 0.0, 0
            for step in tasks.epoch(draws):
                loss = self._loss(step, config, draws)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total, num = total + float(loss.detach()) * len(step.user_B), num + len(step.user_B)
            losses.append(total / num)
            if not np.isfinite(losses[-1]):
                raise TrainingError(
                    "the loss of a MeLU", value=losses[-1], mend="lower `rate` or the learning rate"
                )
        return losses

    def _loss(self, step: _Step, config: MeluConfig, draws: np.random.Generator) -> Tensor:
        is_told_B1 = torch.from_numpy((draws.random((len(step.user_B), 1)) >= _UNTOLD).astype(np.float32))
        person_BE = self._network.people(self._told_UF[torch.from_numpy(step.user_B)] * is_told_B1)
        support, asked, others = (
            self._items(rows, config.fit.own_dropout, draws)
            for rows in (step.support_BS, step.asked_BQ, step.others_M)
        )
        adapted = self._network.adapted(person_BE, support, step.is_support_BS, others, config.adapting)
        return self._network.loss_of_each(adapted, person_BE, asked, step.is_asked_BQ, others).mean()

    def _items(self, rows: Tensor, dropout: float, draws: np.random.Generator) -> Items:
        has_own = torch.from_numpy((draws.random(tuple(rows.shape)) >= dropout).astype(np.float32))
        return Items(self._embedding(self._content_IC, rows, has_own), self._prior_I[rows])


def _padded(rows: "list[Any]", width: int) -> tuple[Tensor, Tensor]:
    """(B, width) rows from the left, 0 behind; and 1 where there is one, else 0."""
    row_BS = np.zeros((len(rows), width), np.int64)
    is_there_BS = np.zeros((len(rows), width), np.float32)
    for b, own in enumerate(rows):
        row_BS[b, : len(own)], is_there_BS[b, : len(own)] = own, 1
    return torch.from_numpy(row_BS), torch.from_numpy(is_there_BS)


def _told(attributes: Attributes, askers: Askers) -> Float32:
    """(B, F) attributes, and 1 where any is known."""
    told_BF = attributes.encode(askers.attributes, len(askers))
    return np.concatenate([told_BF, told_BF.any(axis=1, keepdims=True).astype(np.float32)], axis=1)


def _prior(log: Log) -> Float32:
    """(I,) logarithm of how often each item was taken, about 0; 0 for items that nobody took."""
    count_I = np.bincount(log.item_N, minlength=log.num_items)
    taken_I = count_I > 0
    log_I = np.log(np.maximum(count_I, 1))
    prior_I: Float32 = np.where(taken_I, log_I - log_I[taken_I].mean(), 0).astype(np.float32)
    return prior_I
