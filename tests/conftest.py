"""What holds for all tests: properties have no time limit, since speed is measured by benchmarks."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
