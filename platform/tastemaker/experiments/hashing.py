r"""The hash by which units are assigned: the same number for the same texts in every language and release.

A unit's bucket is the first 8 bytes of SHA-256 over the UTF-8 texts salt, scope and unit joined by NUL bytes,
read as a big-endian number, its top 53 bits divided by 2^53: a number in [0, 1) that a double holds exactly.

| what is decided | salt | scope |
|---|---|---|
| variant under a fixed split | the experiment's | the experiment's name |
| a bandit's draw | the experiment's | name, a colon and the number of the epoch: each epoch draws anew |
| slot in a layer | empty | `layer:` and the layer's name |
| the catalogue's holdout | empty | `holdout:` and the holdout's salt |

| salt | scope | unit | bucket |
|---|---|---|---|
| s1 | checkout | user-1 | 0.4937115679076297 |
| s1 | checkout | user-2 | 0.2672596927420634 |
| s2 | checkout | user-1 | 0.7662987400795563 |
| s1 | checkout:3 | user-1 | 0.823100510462958 |
| s1 | checkout | ü | 0.6962507595302515 |

The first by hand: `printf 's1\0checkout\0user-1' | sha256sum` begins 7e63e19dd1f58ff0, and
(0x7e63e19dd1f58ff0 >> 11) / 2^53 = 0.49371… More of them are in `assignment_vectors.json` beside this file.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from tastemaker.types import Float64


def bucket(salt: str, scope: str, unit: str) -> float:
    """A number in [0, 1), uniform over units. See the module's text for the rule and test vectors.

    >>> bucket("s1", "checkout", "user-1")
    0.4937115679076297
    """
    digest = hashlib.sha256(f"{salt}\0{scope}\0{unit}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def buckets(salt: str, scope: str, units: Iterable[str]) -> Float64:
    """`bucket` of many units at once, for whoever looks at a population.

    >>> buckets("s1", "checkout", ["user-1", "user-2"]).tolist()
    [0.4937115679076297, 0.2672596927420634]
    """
    begun = hashlib.sha256(f"{salt}\0{scope}\0".encode())
    starts = []
    for unit in units:
        one = begun.copy()
        one.update(unit.encode())
        starts.append(one.digest()[:8])
    numbers = np.frombuffer(b"".join(starts), ">u8").astype(np.uint64)
    return (numbers >> np.uint64(11)).astype(np.float64) / 2**53


def pick(probabilities: Sequence[float], point: float) -> int:
    """The place in `probabilities` (which add up to 1) that holds `point` of [0, 1).

    Variants lie on [0, 1) in their order, each as wide as its probability.

    >>> [pick([0.5, 0.25, 0.25], x) for x in (0.0, 0.49, 0.5, 0.75, 0.999)]
    [0, 0, 1, 2, 2]
    """
    edge = 0.0
    for place, probability in enumerate(probabilities):
        edge += probability
        if point < edge:
            return place
    return len(probabilities) - 1  # the sum fell short of 1 by rounding
