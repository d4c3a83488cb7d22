"""Waits for what is to come by asking for it again and again. A test that waits in vain fails, and says for what."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

WAIT_SECONDS = 60.0
"""Long enough for a busy machine: nothing is measured by it."""
ASK_AGAIN_SECONDS = 0.02


def until(found: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """What `found` gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(ASK_AGAIN_SECONDS)
    return answer


async def eventually(found: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """The same in an event loop, beside which `found` is called: it may block."""
    deadline = time.monotonic() + seconds
    while not (answer := await asyncio.to_thread(found)):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(ASK_AGAIN_SECONDS)
    return answer
