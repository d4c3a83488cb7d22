"""What each field of a click network's row adds to its log-odds, beside the rows that it competes with.

Shape letters: K rows that compete, N rows of a pass, C fields of one value, V fields whose vectors move, D dimension, E = D + 1,
F dense features, R rows of the table that stay, X = F + V * E inputs.
"""

from dataclasses import replace

import torch
from torch import Tensor

from tastemaker.errors import DataError
from tastemaker.models.contributions import Contributions, require_row
from tastemaker.models.ctr.fields import Rows
from tastemaker.models.ctr.vectors import Bags, Batch, Network
from tastemaker.models.expected_gradients import expected_gradients


def network_contributions(network: Network, rows: Rows, at: int) -> Contributions:
    """Of each field, by name; see `expected_gradients`. Thread-safe: the network is asked with a table beside its own.

    An input is a standardised number, or one of the numbers that the table has for a field: a field's are added up. A field of many
    values in which all rows are alike, as in a request's history, stays as it is; of another its mean is read, as the network does.

    Args:
        network: In evaluation.
        rows: Of one request.
        at: The row that is explained.

    Raises:
        DataError: There is no such row, or rows differ in a field of which the network reads more than its mean.
    """
    require_row(len(rows), at)
    inputs = _Inputs(network, rows)
    told = expected_gradients(inputs.outputs, inputs.input_KX, inputs.names, at, inputs.largest)
    return replace(told, by_feature=dict.fromkeys(rows.fields.names, 0.0) | dict(told.by_feature))


class _Inputs:
    """A network as a function of what its table gives.

    Each row that is asked about has rows of a table of its own, one for each field whose vector moves.
    """

    def __init__(self, network: Network, rows: Rows) -> None:
        vectors = network.vectors
        self._network = network
        with torch.no_grad():
            batch = vectors.batch(rows)
            moving = {
                one.name: vectors.table[batch.row_BC[:, place]]
                for place, one in enumerate(rows.fields.categorical)
            }
            self._num_single = len(moving)
            for name, bags in batch.bags.items():
                if not _is_alike(bags):
                    _require_mean(network, name)
                    moving[name] = vectors.mean(bags)
            self._alike = {name: _first(bags) for name, bags in batch.bags.items() if name not in moving}
            stays = [row_L for row_L, _ in self._alike.values()]
            self._stays_RE = vectors.table[torch.cat(stays)] if stays else vectors.table[:0]
            self._num_dense, self._width = batch.dense_BF.shape[1], vectors.dim + 1
            self.input_KX = torch.cat([batch.dense_BF, *moving.values()], 1)
        self._bag_names, self._multi = list(moving)[self._num_single :], list(batch.bags)
        self.names = list(rows.fields.dense) + [name for name in moving for _ in range(self._width)]
        self.largest = max([1, *map(len, stays)])
        """Values of the largest field of a row that stays."""

    def outputs(self, input_NX: Tensor) -> Tensor:
        """Log-odds (N,)."""
        dense_NF, rest_NX = input_NX[:, : self._num_dense], input_NX[:, self._num_dense :]
        table_RE = torch.cat([self._stays_RE, rest_NX.reshape(-1, self._width)])
        row_NV = torch.arange(len(self._stays_RE), len(table_RE)).view(len(input_NX), -1)
        bags = self._bags(row_NV)
        in_order = {name: bags[name] for name in self._multi}
        found: Tensor = self._network(Batch(row_NV[:, : self._num_single], in_order, dense_NF, table_RE))
        return found

    def _bags(self, row_NV: Tensor) -> dict[str, Bags]:
        num, found, begin = len(row_NV), {}, 0
        for name, (row_L, weight_L) in self._alike.items():
            length = len(row_L)
            place_L = torch.arange(begin, begin + length)
            found[name] = _bags(place_L.repeat(num), weight_L.repeat(num), length, num)
            begin += length
        for place, name in enumerate(self._bag_names, self._num_single):
            found[name] = _bags(row_NV[:, place].contiguous(), torch.ones(num), 1, num)
        return found


def _require_mean(network: Network, name: str) -> None:
    if name in network.read_singly:
        raise DataError(
            "rows that explain each other", value=f"rows whose {name} differs", limit=f"one {name}",
            mend="explain rows of one request",
        )  # fmt: skip


def _bags(row_V: Tensor, weight_V: Tensor, length: int, num: int) -> Bags:
    return Bags(row_V, torch.arange(num) * length, weight_V, torch.full((num,), length))


def _is_alike(bags: Bags) -> bool:
    """Whether all rows have the same values with the same weights, in order."""
    num, length = len(bags.length_B), int(bags.length_B[0])
    if not bool((bags.length_B == length).all()):
        return False
    row_BL, weight_BL = bags.row_V.view(num, length), bags.weight_V.view(num, length)
    return bool((row_BL == row_BL[0]).all() and (weight_BL == weight_BL[0]).all())


def _first(bags: Bags) -> tuple[Tensor, Tensor]:
    """Rows and weights of the first bag."""
    length = int(bags.length_B[0])
    return bags.row_V[:length], bags.weight_V[:length]
