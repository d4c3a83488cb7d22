"""What an id of the customer's may be: one rule for users, items, events and requests, wherever they come in.

1 to 256 characters, at least one of them to be seen, none a control character: such ids cannot be told apart in a log or
on a page, and break lines in both. Not for names that we give ourselves.
"""

from typing import Annotated, Final

from pydantic import Field

from tastemaker.types import MAX_ID_LENGTH

_CONTROL: Final = r"\x00-\x1f\x7f-\x9f"
ID_PATTERN: Final = rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$"
CONTROL_RE2: Final = r"[\x00-\x1f\x7f-\x{9f}]"
"""The same characters as Arrow's regular expressions name them."""
ID_RULE: Final = "without control characters and not blank"

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH, pattern=ID_PATTERN)]
