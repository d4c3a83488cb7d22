"""Takes secrets out of text that people will see: logs, a support bundle. Not for personal data: nobody puts that there."""

import re
from typing import Final

HIDDEN: Final = "***"
_URL_CREDENTIALS: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^\s/@\"']*@", re.IGNORECASE)
_BEARER: Final = re.compile(r"(?P<word>bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_ASSIGNED: Final = re.compile(
    r"(?P<name>[\w.-]*(?:password|passwd|secret|token|api_?key|access_?key)[\"']?\s*[=:]\s*)"
    r"(?:(?P<quote>[\"'])(?:\\.|(?!(?P=quote)).)*(?P=quote)|(?!null\b|none\b)[^\s,;&\"'}\]]+)",
    re.IGNORECASE | re.DOTALL,
)


def without_secrets(text: str, known: tuple[str, ...] = ()) -> str:
    """The text with what looks like a secret, and every `known` one, replaced by three asterisks.

    >>> without_secrets("cannot reach redis://app:hunter2@db:6379/0")
    'cannot reach redis://***@db:6379/0'
    >>> without_secrets("Authorization: Bearer 0123456789abcdef")
    'Authorization: Bearer ***'
    >>> without_secrets("state.password=hunter2, k=10")
    'state.password=***, k=10'
    >>> without_secrets('{"password": "hunter 2", "token": null}')
    '{"password": "***", "token": null}'
    """
    for secret in sorted(filter(None, known), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _URL_CREDENTIALS.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = _BEARER.sub(rf"\g<word> {HIDDEN}", text)
    return _ASSIGNED.sub(_hide_value, text)


def _hide_value(found: re.Match[str]) -> str:
    quote = found["quote"] or ""  # kept, so that JSON stays JSON
    return f"{found['name']}{quote}{HIDDEN}{quote}"
