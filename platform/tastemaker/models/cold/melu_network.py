"""The network of a MeLU, and how its last layers adapt to a person. Not for which people and items (`melu`).

Shape letters: B people, S items that a person took, M items nobody is asked about, Q items asked about, I items, F features of
people, C content features, E dimension, H hidden units.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional

_HIDDEN_AT_ONCE = 2**21
"""Hidden units of people and items that are held together."""

Weights = Mapping[str, Tensor]
"""Of the decision layers; with a first dimension B where each person has own ones."""


@dataclass(frozen=True, slots=True)
class Items:
    """Items as the decision layers see them: embedded, with how much likelier than others each is whoever asks."""

    embedded: Tensor
    """(..., E)."""
    prior: Tensor
    """(...), on the scale of logarithms of chances."""

    def at(self, rows: Tensor) -> "Items":
        """Some of them, in the shape of the rows."""
        return Items(self.embedded[rows], self.prior[rows])


@dataclass(frozen=True, slots=True)
class Adapting:
    """How the decision layers adapt."""

    steps: int
    rate: float
    first_order: bool = False


class ItemEmbedding(nn.Module):
    """Embeds items by their content, and by who took them where that counts: what new items have none of.

    Args:
        num_content: C.
        num_items: I.
        dim: E.
    """

    def __init__(self, num_content: int, num_items: int, dim: int) -> None:
        super().__init__()
        self.content = nn.Linear(num_content, dim)
        self.own = nn.Embedding(num_items, dim, _weight=torch.zeros(num_items, dim))

    def forward(self, content_IC: Tensor, rows: Tensor, has_own: Tensor) -> Tensor:
        """(..., E) of rows in any shape; `has_own` is 1 where who took the item counts, else 0."""
        found: Tensor = self.content(content_IC[rows]) + has_own[..., None] * self.own(rows)
        return found


class MeluNetwork(nn.Module):
    """An embedding of people, which all share, and decision layers, which adapt [Lee et al. 2019, Fig. 2].

    Args:
        num_attributes: F.
        dim: E.
        hidden: H.
    """

    def __init__(self, num_attributes: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.people = nn.Linear(num_attributes, dim)
        self.decision = nn.Sequential(
            nn.Linear(2 * dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def shared(self) -> dict[str, Tensor]:
        """The decision layers as nobody has adapted them."""
        return dict(self.decision.named_parameters())

    def scores(self, weights: Weights, person_E: Tensor, items: Items) -> Tensor:
        """(Q,) of one person by some decision layers: logarithms of chances, but for a constant.

        The module's own weights are never put in their place, even for a moment: other threads read them meanwhile.
        """
        both_QX = torch.cat([person_E.expand(len(items.embedded), -1), items.embedded], dim=1)
        hidden_QH = functional.linear(both_QX, weights["0.weight"], weights["0.bias"]).relu()
        hidden_QH = functional.linear(hidden_QH, weights["2.weight"], weights["2.bias"]).relu()
        decided_Q1 = functional.linear(hidden_QH, weights["4.weight"], weights["4.bias"])
        return decided_Q1[:, 0] + items.prior

    def loss(
        self, weights: Weights, person_E: Tensor, taken: Items, is_taken_S: Tensor, others: Items
    ) -> Tensor:
        """Mean over what a person took of -log(its chance among itself and the others); 0 of whom took nothing."""
        taken_S = self.scores(weights, person_E, taken)
        others_1 = torch.logsumexp(self.scores(weights, person_E, others), dim=0)
        lost_S = torch.logaddexp(taken_S, others_1) - taken_S
        return (lost_S * is_taken_S).sum() / is_taken_S.sum().clamp(min=1)

    def adapted(
        self, person_BE: Tensor, taken: Items, is_taken_BS: Tensor, others: Items, adapting: Adapting
    ) -> dict[str, Tensor]:
        """Decision layers of each person after some steps down the loss of what the person took [ibid., Eq. 6, local update].

        Gradients flow through the steps, unless `first_order`: then as if each step's direction were fixed [Finn et al. 2017, Sec. 5.2].

        Args:
            person_BE: Embedded people.
            taken: (B, S) items.
            is_taken_BS: 1 where there is one, else 0.
            others: (M,) the same for all.
            adapting: How.
        """

        def of_one(
            person_E: Tensor, embedded_SE: Tensor, prior_S: Tensor, is_taken_S: Tensor
        ) -> dict[str, Tensor]:
            weights = self.shared()
            for _ in range(adapting.steps):
                slopes = grad(self.loss)(weights, person_E, Items(embedded_SE, prior_S), is_taken_S, others)
                if adapting.first_order:
                    slopes = {name: slope.detach() for name, slope in slopes.items()}
                weights = {name: value - adapting.rate * slopes[name] for name, value in weights.items()}
            return weights

        found: dict[str, Tensor] = vmap(of_one)(person_BE, taken.embedded, taken.prior, is_taken_BS)
        return found

    def scores_of_each(self, weights: Weights, person_BE: Tensor, items: Items) -> Tensor:
        """(B, Q) of people by their own decision layers, for the same items; no gradients.

        It goes through the items in steps, so that what it holds beside the answer does not grow with them. A person's part of the
        first layer is worked out once.
        """
        num_people, num_items = len(person_BE), len(items.embedded)
        first_BHX, dim = weights["0.weight"], person_BE.shape[1]
        own_BHE, of_items_BHE = first_BHX[:, :, :dim], first_BHX[:, :, dim:]
        person_BH1 = own_BHE @ person_BE[:, :, None] + weights["0.bias"][:, :, None]
        found_BQ = torch.empty(num_people, num_items)
        at_once = max(1, _HIDDEN_AT_ONCE // max(1, person_BH1.numel()))
        for begin in range(0, num_items, at_once):
            some = slice(begin, begin + at_once)
            hidden_BHQ = (of_items_BHE @ items.embedded[some].T).add_(person_BH1).relu_()
            hidden_BHQ = (weights["2.weight"] @ hidden_BHQ).add_(weights["2.bias"][:, :, None]).relu_()
            decided_BQ = (weights["4.weight"] @ hidden_BHQ)[:, 0] + weights["4.bias"]
            found_BQ[:, some] = decided_BQ + items.prior[some]
        return found_BQ

    def loss_of_each(
        self, weights: Weights, person_BE: Tensor, asked: Items, is_asked_BQ: Tensor, others: Items
    ) -> Tensor:
        """(B,) of people by their own decision layers, see `loss`."""

        def of_one(
            own: Weights, person_E: Tensor, embedded_QE: Tensor, prior_Q: Tensor, is_asked_Q: Tensor
        ) -> Tensor:
            return self.loss(own, person_E, Items(embedded_QE, prior_Q), is_asked_Q, others)

        found_B: Tensor = vmap(of_one)(dict(weights), person_BE, asked.embedded, asked.prior, is_asked_BQ)
        return found_B
