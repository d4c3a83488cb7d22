"""A champion and a version that wants its place, with what gates look at when it is served: requests, answers, traffic."""

import time

from promotable import write_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config_experiments import PromotionSettings
from tastemaker.events.archive import event_table, write_days
from tastemaker.events.log import Entry
from tastemaker.experiments.decision_log import Decision, decision_table, encode_decision
from tastemaker.experiments.store import ExperimentStore
from tastemaker.promotion.gate import Case
from tastemaker.registry.client import Registry
from tastemaker.registry.live import Watcher
from tastemaker.registry.reports import Report


class World:
    """Version 1, the champion, and version 2, which wants its place, in a catalogue of the session's Valkey."""

    def __init__(self, state, folder):
        self.state, self.home, self.settings = state, state.home, state.settings
        self.registry, self.store = Registry(self.settings, self.home), BundleStore(folder)
        self.catalogue = self.settings.catalogue
        for marker in "12":
            ref = write_bundle(self.store, catalogue=self.catalogue, marker=marker)
            self.registry.publish(self.catalogue, ref, {})
        self.registry.set_alias(self.catalogue, "champion", 1, "ann", "first")
        Watcher(self.registry, state.client, state.keys).poll()

    def case(self, now_ms=None, again=False, may_begin=True, **promotion):
        versions = [self.registry.version(self.catalogue, number) for number in (2, 1)]
        candidate, champion = (Bundle.open(self.store, version.ref) for version in versions)
        return Case(
            settings=self.with_limits(**promotion), home=self.home, number=2, alias="champion",
            candidate=candidate, champion=champion, champion_number=1, again=again, may_begin=may_begin,
            now_ms=now_ms or time.time_ns() // 1_000_000,
        )  # fmt: skip

    def with_limits(self, **promotion):
        return self.settings.model_copy(update={"promotion": PromotionSettings(**promotion)})

    def log(self, decisions, events=()):
        entries = [Entry(f"{one.timestamp_ms}-{n}", encode_decision(one)) for n, one in enumerate(decisions)]
        write_days(self.home / "decisions" / self.catalogue, decision_table(entries))
        if events:
            rows = [Entry(f"{one.timestamp_ms}-{n}", one.model_dump_json()) for n, one in enumerate(events)]
            write_days(self.home / "events" / self.catalogue, event_table(rows))

    def decision(self, request_id, at_ms, **fields):
        return Decision(
            decision_id=request_id, request_id=request_id, timestamp_ms=at_ms, catalogue=self.catalogue,
            origin="live", item_ids=fields.pop("items", ["i1", "i2", "i3", "i4"]),
            user_id=fields.get("unit", "u"), **{"unit": "u", "bundle": "b"} | fields,
        )  # fmt: skip

    def gateway(self, **answers):
        """A gateway that answers aliases from versions."""
        report = Report(1, (), time.time_ns() // 1_000_000, answers=answers)
        self.state.client.hset(self.state.keys.ready, "gateway/a", report.encode())

    @property
    def experiments(self):
        return ExperimentStore(self.state.client, self.state.keys)
