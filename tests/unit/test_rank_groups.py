"""A parent of ranks that ends is noticed, and the next group of ranks has another."""

from functools import cache

import pytest
import ranks

ANSWERS = (
    "import os\nfor line in sys.stdin:\n    print([os.getpid()], flush=True)\n    print([0], flush=True)\n"
)


@pytest.fixture
def parent(monkeypatch, tmp_path):
    """Gives what a parent of this test's own runs."""
    monkeypatch.setattr(ranks, "_parent", cache(ranks._parent.__wrapped__))
    monkeypatch.setattr(ranks, "_kill", lambda pids: None)
    file = tmp_path / "parent.py"
    monkeypatch.setattr(ranks, "PARENT", file)
    yield lambda code: file.write_text(f"import sys\n{code}")
    ranks._end(ranks._parent())


def test_one_parent_forks_all_groups(parent):
    parent(ANSWERS)
    assert ranks._run([]) == ranks._run([]) == [0]
    assert ranks._parent.cache_info().misses == 1


def test_a_parent_that_ended_between_groups_is_replaced(parent):
    parent(f"{ANSWERS}    sys.exit(0)\n")
    assert ranks._run([]) == [0]
    ranks._parent().wait()
    parent(ANSWERS)
    assert ranks._run([]) == [0]


@pytest.mark.parametrize("said", ["", "print([], flush=True)\n"])
def test_a_parent_that_ends_before_it_answers_is_told_and_replaced(parent, said):
    parent(f"sys.stdin.readline()\n{said}sys.exit(3)\n")
    with pytest.raises(RuntimeError, match="the process that forks ranks ended with 3"):
        ranks._run([])
    parent(ANSWERS)
    assert ranks._run([]) == [0]


def test_a_parent_whose_answer_is_still_to_come_is_ended(parent):
    parent("sys.stdin.readline()\nprint('no JSON', flush=True)\nsys.stdin.readline()\n")
    first = ranks._parent()
    with pytest.raises(ValueError, match="Expecting value"):
        ranks._run([])
    assert first.poll() is not None
    assert ranks._parent() is not first
