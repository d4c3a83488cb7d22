"""Losses of retrievers, as pure functions.

Shape letters: B queries, M items of a batch of which the first B are the queries' targets, D dimension, V items of all
histories, U distinct items.
"""

import torch
from torch import Tensor
from torch.nn import functional

from tastemaker.models.cross_batch import Remembered
from tastemaker.models.tables import Jagged


def sampled_softmax_loss(
    query_BD: Tensor,
    item_MD: Tensor,
    item_M: Tensor,
    log_q_M: Tensor,
    temperature: float,
    *,
    in_batch: bool = True,
    owner_M: Tensor | None = None,
    history: Jagged | None = None,
    memory: Remembered | None = None,
) -> Tensor:
    """Softmax cross-entropy of each query's target among the batch's items, corrected for how these were drawn.

    The logit of item j is <query, item_j> / temperature - log_q_j [Yi et al. 2019, Eq. 3 and 4]. Items that are the
    query's own target drawn again (accidental hits) are left out, whatever drew them. Departure from the paper: other
    kinds of negatives stand beside the in-batch ones, each with its own log_q. Each kind's sum estimates the same sum
    over the catalogue, so that more kinds make it steadier and leave the gradient's mean alone.

    An owned item is one that its query's user was shown and left. It is no draw from the catalogue, so it stands in no
    such sum: it adds -log P(target | target or item) with uncorrected logits, as both stood in what was shown
    [McFadden 1978, uniform conditioning]. What it weighs then depends on the number of owned items alone, and not on
    how much of the catalogue a batch covers.

    Arithmetic is float32 or wider, under autocast too.

    Args:
        query_BD: One vector per query.
        item_MD: One vector per item, targets first.
        item_M: Which item each is, int64.
        log_q_M: Log of each item's expected number among its kind (targets or negatives) in the batch.
        temperature: Divides the inner products.
        in_batch: The other queries' targets are negatives. Without, a target's log_q is that of its being drawn.
        owner_M: The one query that an item stands against, -1 where all; unset: all.
        history: Items, in the numbers of `item_M`, that are no negatives of each query.
        memory: Items of past batches, negatives of all queries.

    Returns:
        The mean over the B queries.
    """
    if memory is not None:
        item_MD = torch.cat([item_MD, memory.vector_MD.to(item_MD.dtype)])
        item_M = torch.cat([item_M, memory.item_M])
        log_q_M = torch.cat([log_q_M, memory.log_q_M])
    if memory is not None and owner_M is not None:
        owner_M = functional.pad(owner_M, (0, len(memory.item_M)), value=-1)
    logit_BM = _logits(query_BD, item_MD, temperature)
    out_BM = left_out(item_M, len(query_BD), in_batch=in_batch, owner_M=owner_M, history=history)
    left = logit_BM.new_zeros(())
    if owner_M is not None:
        left = _left_for_target(logit_BM, out_BM, owner_M)
        out_BM = out_BM | (owner_M >= 0)
    return left + functional.cross_entropy(
        (logit_BM - log_q_M).masked_fill(out_BM, -torch.inf),
        torch.arange(len(query_BD), device=query_BD.device),
    )


def _logits(query_BD: Tensor, item_MD: Tensor, temperature: float) -> Tensor:
    wide = torch.promote_types(query_BD.dtype, torch.float32)
    with torch.autocast(query_BD.device.type, enabled=False):
        return query_BD.to(wide) @ item_MD.to(wide).T / temperature


def _left_for_target(logit_BM: Tensor, out_BM: Tensor, owner_M: Tensor) -> Tensor:
    """Sum over owned items of -log P(target | target or item), over the number of queries."""
    owner, item = owner_M.clamp(min=0), torch.arange(len(owner_M), device=owner_M.device)
    surprise_M = functional.softplus(logit_BM[owner, item] - logit_BM[owner, owner])
    return (surprise_M * ((owner_M >= 0) & ~out_BM[owner, item])).sum() / len(logit_BM)


def left_out(
    item_M: Tensor,
    num_queries: int,
    *,
    in_batch: bool = True,
    owner_M: Tensor | None = None,
    history: Jagged | None = None,
) -> Tensor:
    """Bool (B, M): item j does not stand against query i; see `sampled_softmax_loss`. A target always stands.

    >>> left_out(torch.tensor([7, 8, 9]), 2, owner_M=torch.tensor([-1, -1, 1])).tolist()
    [[False, False, True], [False, False, False]]
    """
    out_BM = accidental_hits(item_M, num_queries)
    rows = torch.arange(num_queries, device=item_M.device)
    if not in_batch:
        out_BM[:, :num_queries] = True
    if owner_M is not None:
        out_BM |= (owner_M >= 0) & (owner_M != rows[:, None])
    if history is not None:
        out_BM |= _in_history(item_M, history)
    out_BM[rows, rows] = False
    return out_BM


def accidental_hits(item_M: Tensor, num_queries: int) -> Tensor:
    """Bool (B, M): item j is query i's target, but not the copy that stands for it.

    >>> accidental_hits(torch.tensor([7, 8, 7]), 2).tolist()
    [[False, False, True], [False, False, False]]
    """
    same_BM = item_M[:num_queries, None] == item_M[None, :]
    rows = torch.arange(num_queries, device=item_M.device)
    same_BM[rows, rows] = False
    return same_BM


def _in_history(item_M: Tensor, history: Jagged) -> Tensor:
    """Bool (B, M): item j is in query i's history; by search, as (V, M) comparisons would not fit in memory."""
    unique_U, inverse_M = torch.unique(item_M, return_inverse=True)
    row_V = torch.repeat_interleave(history.lengths)
    at_V = torch.searchsorted(unique_U, history.values).clamp(max=len(unique_U) - 1)
    found = unique_U[at_V] == history.values
    in_BU = torch.zeros(len(history), len(unique_U), dtype=torch.bool, device=item_M.device)
    in_BU[row_V[found], at_V[found]] = True
    return in_BU[:, inverse_M]
