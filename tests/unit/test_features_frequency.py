import numpy as np
import pytest

from tastemaker.errors import CompatibilityError
from tastemaker.features.frequency import StreamingFrequency

NUM_ITEMS, BATCH = 500, 128


def zipf(num_items: int = NUM_ITEMS) -> np.ndarray:
    share = 1 / np.arange(1, num_items + 1)
    return share / share.sum()


def stream(frequency: StreamingFrequency, share: np.ndarray, steps: range, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for step in steps:
        frequency.update(generator.choice(len(share), BATCH, p=share), step)


def test_a_stream_by_hand():
    frequency = StreamingFrequency(num_slots=1024, alpha=0.4)
    frequency.update(np.array([5, 7]), 0)
    frequency.update(np.array([7, 7]), 1)
    # 5: one gap of 1 step. 7: gaps of 1, 1/2 and 1/2, the first 1/alpha = 2.5 averaged evenly; the mean is 2/3.
    assert frequency.expected(np.array([5])) == pytest.approx([1])
    even = 1 + 2 / 3 * (1 / 2 - 1)  # two gaps at once: 2 of 3 sightings, or 1 - 0.6^2 = 0.64, which is less
    assert frequency.expected(np.array([7])) == pytest.approx([1 / even])
    frequency.update(np.array([5, 8]), 4)
    assert frequency.expected(np.array([5])) == pytest.approx([1 / (1 + 1 / 2 * (4 - 1))])  # 2 in 5 steps
    frequency.update(np.array([7, 6]), 5)
    assert frequency.expected(np.array([7])) == pytest.approx([1 / (even + 0.4 * (4 - even))])
    assert frequency.expected(np.array([9])) == pytest.approx([1 / 7])  # not in 6 steps


def test_estimates_come_near_the_truth_on_a_zipf_stream():
    frequency, share = StreamingFrequency(num_slots=4096, alpha=0.01), zipf()
    stream(frequency, share, range(2000), seed=1)
    found = frequency.expected(np.arange(NUM_ITEMS)) / (BATCH * share)
    # The rarest is seen some 75 times; a mean of 1/alpha gaps has a standard error of 10%, of as many gaps newest
    # first 7%, and gaps within a batch are rounded.
    assert np.abs(np.log(found)).mean() < 0.08
    assert np.abs(np.log(found)).max() < 0.45  # four standard errors
    assert found[0] == pytest.approx(
        1, abs=0.1
    )  # in a batch 19 times, which one sighting a step could not tell


def test_estimates_follow_when_the_distribution_changes():
    frequency, share = StreamingFrequency(num_slots=4096, alpha=0.02), zipf()
    stream(frequency, share, range(1000), seed=2)
    stream(frequency, share[::-1], range(1000, 3000), seed=3)
    popular = np.arange(NUM_ITEMS - 20, NUM_ITEMS)
    found = frequency.expected(popular) / (BATCH * share[::-1][popular])
    assert np.abs(np.log(found)).max() < 0.45
    once_popular = frequency.expected(np.arange(20)) / (BATCH * share[::-1][:20])
    assert np.abs(np.log(once_popular)).mean() < 0.3


def test_the_larger_gap_of_two_arrays_makes_up_for_shared_slots():
    generator = np.random.default_rng(4)
    ids = generator.integers(2**62, size=2000)
    crowded, roomy = StreamingFrequency(num_slots=4096), StreamingFrequency(num_slots=1 << 22)
    for step in range(200):
        batch = ids[generator.choice(2000, BATCH, p=zipf(2000))]
        crowded.update(batch, step)
        roomy.update(batch, step)
    seen = ids[roomy.expected(ids) > 1 / 201]
    alone = (crowded.expected(seen) == roomy.expected(seen)).mean()
    # With 1,858 seen, an item shares its slot in one array with chance 1 - exp(-1858/4096) = 0.36, in both 0.13.
    assert len(seen) == 1858
    assert alone == pytest.approx(0.87, abs=0.03)  # four standard errors


def test_it_goes_on_from_its_state():
    whole, share = StreamingFrequency(num_slots=1024), zipf(100)
    stream(whole, share, range(20), seed=5)
    resumed = StreamingFrequency(num_slots=1024)
    resumed.load({name: array.copy() for name, array in whole.state().items()})
    for each in (whole, resumed):
        stream(each, share, range(20, 40), seed=6)
    items = np.arange(200)
    assert resumed.expected(items).tolist() == whole.expected(items).tolist()


def test_a_state_of_other_slots_is_refused():
    with pytest.raises(CompatibilityError, match="is 1024, must be 2048: resume with the number of slots"):
        StreamingFrequency(num_slots=2048).load(StreamingFrequency(num_slots=1024).state())
