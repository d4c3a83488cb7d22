"""Warnings of what Ray and MLflow do, which are not ours to mend."""

import pytest

RAY_NOISE = [
    # They leave files and sockets to the collector, and use what later releases rename.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
