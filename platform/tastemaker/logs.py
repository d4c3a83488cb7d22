"""What the processes that serve write to stderr: lines for people, or one JSON object a line for collectors.

A line that is written while a request is answered carries its id. What looks like a secret is taken out of every line;
histories are not logged by any part.
"""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from tastemaker.config import LoggingSettings
from tastemaker.redaction import without_secrets

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that this task answers; empty outside of one."""
PACKAGES: Final = ("tastemaker", "tastemaker_services", "tastemaker_training")


class _Lines(logging.Formatter):
    def _request_id(self, record: logging.LogRecord) -> str:
        return str(getattr(record, "request_id", "") or REQUEST_ID.get())

    def _fault(self, record: logging.LogRecord) -> str:
        return without_secrets(self.formatException(record.exc_info)) if record.exc_info else ""


class TextLines(_Lines):
    """For people: time, level, logger, the request's id where there is one, message."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the lines of a traceback."""
        request_id = self._request_id(record)
        words = [_time(record), record.levelname, record.name, *([f"[{request_id}]"] if request_id else [])]
        line = f"{' '.join(words)}: {without_secrets(record.getMessage())}"
        fault = self._fault(record)
        return f"{line}\n{fault}" if fault else line


class JsonLines(_Lines):
    """For collectors: `time` (UTC, ISO 8601), `level`, `logger`, `message`, and where there is one `request_id` and `fault`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
        }
        if request_id := self._request_id(record):
            fields["request_id"] = request_id
        if fault := self._fault(record):
            fields["fault"] = fault
        return json.dumps(fields, ensure_ascii=False)


class _Stderr(logging.Handler):
    """Writes to the process's own stderr: what Serve puts in its place in replicas drops most lines."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            stream = sys.__stderr__ or sys.stderr
            stream.write(self.format(record) + "\n")
            stream.flush()
        except Exception:  # noqa: BLE001 (logging must not end what logs)
            self.handleError(record)


def write_logs(settings: LoggingSettings) -> None:
    """Has our packages' loggers write to stderr as the settings say; calling it again replaces what an earlier call set."""
    handler = _Stderr()
    handler.setFormatter(JsonLines() if settings.format == "json" else TextLines())
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.handlers = [one for one in logger.handlers if not isinstance(one.formatter, _Lines)]
        logger.addHandler(handler)
        logger.setLevel(settings.level.upper())


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
