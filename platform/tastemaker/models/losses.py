"""Losses of retrievers, as pure functions.

Shape letters: B queries, M items of a batch of which the first B are the queries' targets, D dimension.
"""

import torch
from torch import Tensor
from torch.nn import functional


def sampled_softmax_loss(
    query_BD: Tensor, item_MD: Tensor, item_M: Tensor, log_q_M: Tensor, temperature: float
) -> Tensor:
    """Softmax cross-entropy of each query's target among the batch's items, corrected for how these were drawn.

    The logit of item j is <query, item_j> / temperature - log_q_j [Yi et al. 2019, Eq. 3 and 4]. Items that are the
    query's own target drawn again (accidental hits) are left out. Departure from the paper: extra negatives drawn
    from another distribution stand beside the in-batch ones, each with its own log_q.

    Args:
        query_BD: One vector per query.
        item_MD: One vector per item, targets first.
        item_M: Which item each is, int64.
        log_q_M: Log of each item's expected number among its kind (targets or negatives) in the batch.
        temperature: Divides the inner products.

    Returns:
        The mean over the B queries.
    """
    logit_BM = query_BD @ item_MD.T / temperature - log_q_M
    return functional.cross_entropy(
        logit_BM.masked_fill(accidental_hits(item_M, len(query_BD)), -torch.inf),
        torch.arange(len(query_BD), device=query_BD.device),
    )


def accidental_hits(item_M: Tensor, num_queries: int) -> Tensor:
    """Bool (B, M): item j is query i's target, but not the copy that stands for it.

    >>> accidental_hits(torch.tensor([7, 8, 7]), 2).tolist()
    [[False, False, True], [False, False, False]]
    """
    same_BM = item_M[:num_queries, None] == item_M[None, :]
    rows = torch.arange(num_queries, device=item_M.device)
    same_BM[rows, rows] = False
    return same_BM
