"""Parts of EMCDR: where newcomers stand among known people, and maps from one domain to the other."""

import numpy as np
import pytest
import scipy.sparse as sp

from tastemaker.models.factors.ials import Ials, IalsConfig
from tastemaker.models.log import Askers
from tastemaker.models.transfer.emcdr import folded
from tastemaker.models.transfer.mapping import LinearMapConfig, NetworkMapConfig, fit_map, mapped


class TestFoldedIn:
    config = IalsConfig(dim=3, regularization=0.02, unobserved_weight=0.2, frequency_power=0.7)

    def test_without_a_prior_it_is_what_ials_says(self):
        draws = np.random.default_rng(0)
        item_JD = draws.normal(size=(9, 3)).astype(np.float32)
        taken_BJ = sp.csr_matrix((draws.random((5, 9)) < 0.4).astype(np.float32))
        askers = Askers.strangers(
            [taken_BJ.indices[taken_BJ.indptr[b] : taken_BJ.indptr[b + 1]] for b in range(5)]
        )
        expected = Ials(self.config, item_JD, np.zeros(9, np.float32)).user_vectors(askers)
        np.testing.assert_allclose(folded(taken_BJ, item_JD, self.config), expected, atol=1e-5)

    def test_whoever_took_nothing_is_where_the_prior_is(self):
        prior = np.array([[0.3, -1.0, 2.0]], np.float32)
        found = folded(sp.csr_matrix((1, 4)), np.ones((4, 3), np.float32), self.config, prior)
        np.testing.assert_array_equal(found, prior)

    def test_with_a_prior_it_is_as_worked_out_by_hand(self):
        config = IalsConfig(dim=1, regularization=0.5, unobserved_weight=0.1, frequency_power=1.0)
        item_JD, prior = np.array([[1.0], [2.0]], np.float32), np.array([[0.4]], np.float32)
        taken = sp.csr_matrix(np.array([[0.0, 1.0]], np.float32))
        # 2^2 + .1 (1 + 4) + .5 (1 + .1 * 2) = 5.1 = the curve; what is missing of 1 is 1 - 2 * .4 = .2
        assert folded(taken, item_JD, config, prior)[0, 0] == pytest.approx(0.4 + 2 * 0.2 / 5.1, rel=1e-5)


class TestMaps:
    def test_a_linear_map_is_found(self):
        draws = np.random.default_rng(0)
        x, true = draws.normal(size=(200, 4)).astype(np.float32), draws.normal(size=(4, 3))
        found = fit_map(x, (x @ true + [1, 2, 3]).astype(np.float32), LinearMapConfig(penalty=0.0), 0)
        np.testing.assert_allclose(found["weight"], true, atol=1e-3)
        np.testing.assert_allclose(found["bias"], [1, 2, 3], atol=1e-3)

    def test_a_penalty_of_as_many_users_as_there_are_halves_a_map_between_even_dimensions(self):
        x = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
        found = fit_map(x, 3 * x, LinearMapConfig(penalty=4.0), 0)
        np.testing.assert_allclose(found["weight"], 1.5 * np.eye(2), atol=1e-4)

    def test_a_network_follows_what_no_matrix_can(self):
        draws = np.random.default_rng(0)
        x = draws.normal(size=(400, 2)).astype(np.float32)
        y = 5 + np.abs(x)
        test = draws.normal(size=(100, 2)).astype(np.float32)
        error = {}
        for config in (LinearMapConfig(), NetworkMapConfig(hidden=32, epochs=60, learning_rate=0.01)):
            found = mapped(test, fit_map(x, y, config, seed=1))
            error[config.kind] = float(((found - 5 - np.abs(test)) ** 2).mean())
        assert error["network"] < 0.3 * error["linear"]
