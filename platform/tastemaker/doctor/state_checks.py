"""Redis/Valkey: does it answer, does it keep what it is given, how far behind are those who read its streams."""

from collections.abc import Iterator
from typing import Any, Final

import redis

from tastemaker.config import Settings
from tastemaker.doctor.finding import Finding, Outcome, now_ms
from tastemaker.events.progress import Progress
from tastemaker.state.connection import nodes_of, state_errors
from tastemaker.state.keys import Keys

LEAST_VERSION: Final = (7, 2)
"""Of Redis; WAITAOF came with it. Every Valkey has it."""
FULL_RATIO: Final = 0.8
SKEW_MS: Final = 2000
LATE_SECONDS: Final = 60.0


def check_server(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    """Version, append-only file, eviction and memory of every node."""
    for node in nodes_of(client):
        with state_errors("read what the server says of itself"):
            info: dict[str, Any] = node.info("everything")  # type: ignore[assignment]
        yield _version(info)
        yield _persistence(info, settings)
        yield _eviction(node, settings)
        yield _memory(info)


def check_clock(client: redis.Redis) -> Iterator[Finding]:
    """How far our clock is from the server's: leases, windows and histories go by both."""
    with state_errors("read the server's clock"):
        seconds, microseconds = nodes_of(client)[0].time()  # type: ignore[misc]
    skew_ms = abs(now_ms() - (seconds * 1000 + microseconds // 1000))
    outcome: Outcome = "ok" if skew_ms <= SKEW_MS else "warning"
    mend = "" if outcome == "ok" else "run a time service (chrony, systemd-timesyncd) on both machines"
    yield Finding("clock", outcome, f"{skew_ms / 1000:.1f} s from Redis/Valkey's", mend)


def check_streams(client: redis.Redis, keys: Keys) -> Iterator[Finding]:
    """Whether consumers live, how old the oldest event or decision is that none has applied, and what could not be applied."""
    now = now_ms()
    partitions = range(keys.partitions)
    with state_errors("read the streams"):
        alive = int(client.zcount(keys.consumers, now, "+inf"))  # type: ignore[arg-type]
        pipe: Any = client.pipeline(transaction=False)
        for p in partitions:
            pipe.hget(keys.offsets(p), "progress")
        progress = [Progress.decode(text) for text in pipe.execute()]
        for p in partitions:
            pipe.xrange(keys.events(p), f"({progress[p].events}", "+", count=1)
            pipe.xrange(keys.decisions(p), f"({progress[p].decisions}", "+", count=1)
        for p in partitions:
            pipe.xlen(keys.dead_letters(p))
        replies = pipe.execute()
    streams, dead = replies[: 2 * keys.partitions], replies[2 * keys.partitions :]
    oldest = [int(entries[0][0].partition("-")[0]) for entries in streams if entries]
    yield _consumers(alive, waiting=len(oldest))
    yield _lag((now - min(oldest)) / 1000 if oldest else None)
    yield _dead_letters(sum(dead))


def _version(info: dict[str, Any]) -> Finding:
    if "valkey_version" in info:
        return Finding("state version", "ok", f"Valkey {info['valkey_version']}")
    text = str(info.get("redis_version", "0"))
    version = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if version >= LEAST_VERSION:
        return Finding("state version", "ok", f"Redis {text}")
    return Finding("state version", "failed", f"Redis {text}", "use Redis 7.2 or newer, or Valkey")


def _persistence(info: dict[str, Any], settings: Settings) -> Finding:
    if not info.get("aof_enabled"):
        what = "the append-only file is off: a restart loses events, experiments' counts and features"
        return Finding("persistence", "failed", what, "set appendonly yes in Redis/Valkey's configuration")
    written = str(info.get("aof_last_write_status", "ok"))
    if written != "ok":
        return Finding(
            "persistence", "failed", f"the last write of the append-only file: {written}", "free its disk"
        )
    return Finding(
        "persistence", "ok", f"append-only file on, events are answered by {settings.state.ingest}"
    )


def _eviction(node: redis.Redis, settings: Settings) -> Finding:
    try:
        policy = str(node.config_get("maxmemory-policy").get("maxmemory-policy", ""))  # type: ignore[union-attr]
    except redis.RedisError:
        return Finding("eviction", "skipped", "the user of state.url may not read the configuration")
    shared = settings.state.cache_url is None
    if policy == "noeviction" or (shared and policy.startswith("volatile-")):
        return Finding("eviction", "ok", policy)
    mend = "set maxmemory-policy noeviction" + (
        ", or volatile-lfu where it keeps the cache too" if shared else ""
    )
    return Finding("eviction", "failed", f"{policy}: it may drop streams and features", mend)


def _memory(info: dict[str, Any]) -> Finding:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not most:
        return Finding("state memory", "ok", f"{used / 2**20:.0f} MB, no limit is set")
    share = used / most
    detail = f"{used / 2**20:.0f} of {most / 2**20:.0f} MB ({share:.0%})"
    if share < FULL_RATIO:
        return Finding("state memory", "ok", detail)
    return Finding(
        "state memory", "warning", detail, "give it more memory, or shorten state.stream_max_length"
    )


def _consumers(alive: int, waiting: int) -> Finding:
    if alive:
        return Finding("consumers", "ok", f"{alive} alive")
    outcome: Outcome = "failed" if waiting else "warning"
    return Finding(
        "consumers", outcome, "none is alive", "start `tastemaker serve`, or the cluster's consumers"
    )


def _lag(seconds: float | None) -> Finding:
    if seconds is None:
        return Finding("stream lag", "ok", "all is applied")
    detail = f"the oldest event or decision that is not applied is {seconds:.0f} s old"
    if seconds < LATE_SECONDS:
        return Finding("stream lag", "ok", detail)
    return Finding("stream lag", "failed", detail, "see the consumers' log; give them more processes")


def _dead_letters(number: int) -> Finding:
    if not number:
        return Finding("dead letters", "ok", "none")
    mend = "read them: XRANGE of the keys …:dead-letters; each says why it could not be applied"
    return Finding("dead letters", "warning", f"{number} entries of the log could not be applied", mend)
