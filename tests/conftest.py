"""What holds for all tests: properties have no time limit, since speed is measured by benchmarks.

What tests start can be interrupted: a shell's background job has SIGINT ignored, and so would all that it starts.
"""

import signal

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
