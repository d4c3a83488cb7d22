"""LambdaMART by LightGBM: trees that learn from pairs of a request's rows, kept as LightGBM's own text.

Shape letters: N rows, K of them of one request, X columns that trees read, V fields.
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from tastemaker.errors import CompatibilityError, DataError, MissingExtraError
from tastemaker.models.calibration import Calibration
from tastemaker.models.contributions import Contributions, require_row, summed
from tastemaker.models.ctr.fields import Fields, Rows, Values
from tastemaker.models.ctr.model import ClickModel, Labelled, Progress, Watch
from tastemaker.models.propensity_losses import LEAST
from tastemaker.strict import Strict
from tastemaker.types import Float32, Float64, Int64

if TYPE_CHECKING:
    from lightgbm import Booster, Dataset

_STEP: Final = 1.02
"""Between worths of clicks."""
_JUDGED: Final = 10
"""Places of a list that validation looks at."""


class LambdaMartConfig(Strict):
    """LambdaMART."""

    LATER: ClassVar = frozenset({"least_propensity"})

    num_trees: int = Field(300, ge=1, description="trees, at most")
    num_leaves: int = Field(31, ge=2, description="leaves of a tree")
    learning_rate: float = Field(0.05, gt=0, description="what a tree counts")
    min_rows: int = Field(20, ge=1, description="rows of a leaf, at least")
    truncation: int = Field(30, ge=1, description="places of a list in which pairs count")
    patience: int = Field(
        30, ge=1, description="trees that do not raise the validation rows' NDCG@10 and end the fit"
    )
    least_propensity: float = Field(
        LEAST, gt=0, le=1, description="propensities below this count as this, where rows have them"
    )
    num_threads: int = Field(0, ge=0, description="threads of the fit; 0: one a core")
    seed: int = Field(0, ge=0, description="of all that is drawn")


class LambdaMart(ClickModel):
    """LambdaMART [Burges 2010] by LightGBM [Ke et al. 2017]; its scores become probabilities by Platt scaling.

    Rows need `group_N`: rows of different requests are never compared. Values are scaled on the validation rows, where there are
    none on those learned, and are then too sure.

    Propensities are those of clicks: a click is worth 1 / propensity in the DCG whose changes weigh pairs, which is then not divided by
    that of the best list, so that on average it is the relevant rows' DCG [Agarwal et al. 2019]. Order is then that of relevance, while
    probabilities stay those of clicks. Departure: worths are rounded to steps of 2%.
    """

    kind = "lambdamart"
    has_losses = False
    Config: ClassVar[type[Strict]] = LambdaMartConfig

    def __init__(self, fields: Fields, config: Strict, booster: "Booster", calibration: Calibration) -> None:
        self.fields, self.config, self.calibration, self._booster = fields, config, calibration, booster

    @classmethod
    def check_fields(cls, fields: Fields, config: Any) -> None:
        """See `ClickModel.check_fields`: it takes any."""

    @classmethod
    def fit(
        cls,
        learned: Labelled,
        config: LambdaMartConfig,
        validation: Labelled | None = None,
        watch: Watch | None = None,
    ) -> Self:
        """See `ClickModel.fit`.

        Raises:
            DataError: No rows, no groups, no group with both labels, or propensities of the one rows alone.
            MissingExtraError: LightGBM is not installed.
        """
        lightgbm = _lightgbm()
        held_out, callbacks = [], []
        train = _dataset(learned, config)
        if validation is not None:
            validation.rows.require(learned.rows.fields)
            validation.require_like(learned)
            held_out = [_dataset(validation, config, train)]
            callbacks = [lightgbm.early_stopping(config.patience, verbose=False)]
        if watch is not None:
            callbacks = [_watched_by(watch, config.num_trees), *callbacks]
        parameters = _parameters(config, has_propensities=learned.propensity_N is not None)
        booster = lightgbm.train(parameters, train, config.num_trees, held_out, callbacks=callbacks)
        seen = learned if validation is None else validation
        score_N = booster.predict(_columns(seen.rows), num_threads=1).astype(np.float32)
        text = booster.model_to_string(num_iteration=booster.best_iteration)
        calibration = Calibration.fit(score_N, seen.label_N)
        return cls(learned.rows.fields, config, lightgbm.Booster(model_str=text), calibration)

    def scores(self, rows: Rows) -> Float32:
        """See `ClickModel.scores`: sums of leaves."""
        rows.require(self.fields)
        if not len(rows):
            return np.empty(0, np.float32)
        found = self._booster.predict(_columns(rows), num_threads=1)
        return np.asarray(found, np.float32)

    def contributions(self, rows: Rows, at: int) -> Contributions:
        """See `ClickModel.contributions`: Shapley values of the trees [Lundberg et al. 2020], less their mean over the rows."""
        rows.require(self.fields)
        require_row(len(rows), at)
        told: Any = self._booster.predict(_columns(rows), num_threads=1, pred_contrib=True)
        of_field_KV = (
            told[:, :-1] @ _is_of_field(self.fields)
        ).toarray()  # of sparse columns they are sparse
        score_K = self.scores(rows)
        base = float(score_K.mean(dtype=np.float64))
        centred_V = of_field_KV[at] - of_field_KV.mean(0)
        return summed(centred_V, self.fields.names, base, float(score_K[at]))

    def predict(self, rows: Rows) -> Float32:
        """See `ClickModel.predict`."""
        return self.calibration(self.scores(rows))

    def config_dict(self) -> dict[str, Any]:
        """See `ClickModel.config_dict`."""
        return super().config_dict() | {"calibration": self.calibration.model_dump(mode="json")}

    def tensors(self) -> dict[str, np.ndarray]:
        """LightGBM's text as bytes, `trees`."""
        return {"trees": np.frombuffer(self._booster.model_to_string().encode(), np.uint8)}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `ClickModel.from_state`.

        Raises:
            MissingExtraError: LightGBM is not installed.
        """
        lightgbm = _lightgbm()
        fields, parsed = cls._parsed(config)
        mend = "publish the model anew"
        try:
            booster = lightgbm.Booster(model_str=bytes(tensors["trees"]).decode())
        except (KeyError, UnicodeDecodeError, lightgbm.basic.LightGBMError) as error:
            raise CompatibilityError(
                "trees of a lambdamart cannot be read", value=error, mend=mend
            ) from error
        width = _width(fields)
        if booster.num_feature() != width:
            value = booster.num_feature()
            raise CompatibilityError("columns of a lambdamart's trees", value=value, limit=width, mend=mend)
        return cls(fields, parsed, booster, Calibration.parse(config["calibration"], "calibration"))


def _watched_by(watch: Watch, num_trees: int) -> Callable[[Any], None]:
    """LightGBM's callback behind each tree, before the one that ends the fit."""
    best, kept = -math.inf, 0

    def behind_tree(state: Any) -> None:
        nonlocal best, kept
        num, booster = state.iteration + 1, state.model
        reached = [value for _, _, value, _ in state.evaluation_result_list]
        if not reached or reached[0] > best:
            best, kept = reached[0] if reached else best, num

        def scores(rows: Rows) -> Float32:
            return np.asarray(booster.predict(_columns(rows), num_threads=1, num_iteration=kept), np.float32)

        watch(Progress(num / num_trees, scores))

    return behind_tree


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise MissingExtraError(
            "lambdamart needs lightgbm", mend="pip install 'tastemaker[serve]'"
        ) from error
    return lightgbm


def _parameters(config: LambdaMartConfig, *, has_propensities: bool) -> dict[str, Any]:
    worths = {"label_gain": [0.0, *_worths(config)], "lambdarank_norm": False} if has_propensities else {}
    return {
        "objective": "lambdarank", "metric": "ndcg", "eval_at": [_JUDGED], "num_leaves": config.num_leaves,
        "learning_rate": config.learning_rate, "min_data_in_leaf": config.min_rows,
        "lambdarank_truncation_level": config.truncation, "num_threads": config.num_threads,
        "seed": config.seed, "deterministic": True, "force_row_wise": True, "verbosity": -1,
        **worths,
    }  # fmt: skip


def _worths(config: LambdaMartConfig) -> list[float]:
    """What grades from 1 are worth: from 1 to what the least propensity makes of a click, in equal steps of its logarithm."""
    num_steps = math.ceil(-math.log(config.least_propensity) / math.log(_STEP))
    return [_STEP**step for step in range(num_steps + 1)]


def _graded(label_N: Float32, propensity_N: Float32, config: LambdaMartConfig) -> Float32:
    """Labels (N,) whose worth is near 1 / propensity."""
    worth_N = 1.0 / np.maximum(propensity_N, config.least_propensity)
    return np.asarray(label_N * (1 + np.round(np.log(worth_N) / math.log(_STEP))), np.float32)


def best_dcg(worth_N: Float64, size_G: Int64, truncation: int) -> Float64:
    """(G,) DCG of each group's rows, best first, down to a place: what LightGBM divides by, and is multiplied with again here.

    >>> best_dcg(np.array([0.0, 2.0, 4.0]), np.array([1, 2]), 30).round(4).tolist()  # 4 + 2 / log2(3)
    [0.0, 5.2619]
    """
    group_N = np.repeat(np.arange(len(size_G)), size_G)
    order_N = np.lexsort((-worth_N, group_N))
    place_N = np.arange(len(worth_N)) - np.repeat(np.cumsum(size_G) - size_G, size_G)
    gain_N = np.where(place_N < truncation, worth_N[order_N] / np.log2(place_N + 2), 0.0)
    found: Float64 = np.bincount(group_N, gain_N, len(size_G)).astype(np.float64)
    return found


def _dataset(labelled: Labelled, config: LambdaMartConfig, reference: "Dataset | None" = None) -> "Dataset":
    """The rows of each group one after the other, those of a group by luck.

    Rows that score alike keep the order in which they stand here, and the order of what was given may know the answer.
    With a reference they are rows to validate by.
    """
    group_N = labelled.rows.group_N
    if group_N is None or not len(labelled):
        value = "no rows" if group_N is not None else "no groups"
        raise DataError(
            "rows of a lambdamart", value=value, mend="give rows with group_N: those of one request"
        )
    order_N = np.lexsort((np.random.default_rng(config.seed).random(len(group_N)), group_N))
    _, place_N, size = np.unique(group_N, return_inverse=True, return_counts=True)
    yes = np.bincount(place_N, labelled.label_N)
    if not ((yes > 0) & (yes < size)).any():
        raise DataError(
            "no request of a lambdamart has both a yes and a no", mend="give rows that were passed over"
        )
    fields, label_N, weight_N = labelled.rows.fields, labelled.label_N[order_N], None
    if labelled.propensity_N is not None:
        label_N = _graded(label_N, labelled.propensity_N[order_N], config)
        worth_N = np.array([0.0, *_worths(config)])[label_N.astype(np.int64)]
        places = config.truncation if reference is None else _JUDGED
        weight_N = np.repeat(best_dcg(worth_N, size, places), size)
        weight_N /= weight_N.mean()
    found: Dataset = _lightgbm().Dataset(
        _columns(labelled.rows.take(order_N)), label_N, reference=reference, group=size, weight=weight_N,
        categorical_feature=list(range(len(fields.categorical))), params={"verbosity": -1},
    )  # fmt: skip
    return found


def _width(fields: Fields) -> int:
    return len(_column_fields(fields))


def _column_fields(fields: Fields) -> list[str]:
    """Of each column that trees read the field that it is of."""
    single = [*(one.name for one in fields.categorical), *fields.dense]
    return single + [many.name for many in fields.multi for _ in range(many.num_values + 1)]


def _is_of_field(fields: Fields) -> sp.csr_matrix:
    """(X, V): 1 where a column is of a field, in the order of their names."""
    place = {name: at for at, name in enumerate(fields.names)}
    place_X = [place[name] for name in _column_fields(fields)]
    size = (len(place_X), len(place))
    return sp.csr_matrix((np.ones(len(place_X)), (np.arange(len(place_X)), place_X)), size)


def _columns(rows: Rows) -> sp.csr_matrix:
    """(N, X): fields of one value, numbers, and of a field of many how often a row has each value, or what it weighs there."""
    parts = [
        sp.csr_matrix(rows.categorical_NC.astype(np.float64)),
        sp.csr_matrix(rows.dense_NF.astype(np.float64)),
    ]
    for many in rows.fields.multi:
        values = rows.multi[many.name]
        counted = sp.csr_matrix(
            (_shares(values), values.value_V.copy(), values.offsets.copy()),
            (len(rows), many.num_values + 1),
        )
        counted.sum_duplicates()
        parts.append(counted)
    return sp.csr_matrix(sp.hstack([part for part in parts if part.shape[1]], format="csr"))


def _shares(values: Values) -> Float64:
    if values.weight_V is None:
        return np.ones(len(values.value_V))
    return values.weight_V.astype(np.float64)
