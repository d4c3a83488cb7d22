"""Every metric's name, once. Labels are bounded: a value outside the known set becomes `other`.

Many processes serve, so prometheus_client runs in multiprocess mode: `PROMETHEUS_MULTIPROC_DIR` must be set (by the
composition root) before this module is first imported in a serving process.
"""

from prometheus_client import Counter, Gauge, Histogram

LATENCY_BUCKETS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0,
)  # fmt: skip

STAGES = frozenset({"history", "wait", "retrieve", "rank", "rerank", "total"})
OUTCOMES = frozenset({"ok", "degraded", "invalid", "error", "unauthorized", "refused"})
RUNGS = frozenset(
    {
        "no-rerank", "retrieval-order", "base-vector", "cached", "trending", "popular", "no-history",
        "no-experiment", "champion", "no-record", "no-source", "no-shard", "no-policy", "no-cursor",
        "not-interleaved",
    }
)  # fmt: skip

REFUSALS = frozenset({"corrupt", "incompatible", "unreadable", "empty", "not-finite", "slow"})

REQUESTS = Counter(
    "tastemaker_gateway_requests", "Answered requests", ["catalogue", "route", "outcome"]
)  # exported as …_requests_total
STAGE_SECONDS = Histogram(
    "tastemaker_stage_latency_seconds", "Time in a stage, seen from the gateway", ["catalogue", "stage"],
    buckets=LATENCY_BUCKETS,
)  # fmt: skip
STAGE_WORK_SECONDS = Histogram(
    "tastemaker_stage_work_seconds", "Time that a stage's own process has a call of a spread graph, without the way to it and back",
    ["catalogue", "stage"], buckets=LATENCY_BUCKETS,
)  # fmt: skip
BUDGET = Gauge(
    "tastemaker_stage_budget_seconds", "What a stage may take at p99 (`gateway.budget_ms`); `total` is the deadline",
    ["catalogue", "stage"], multiprocess_mode="mostrecent",
)  # fmt: skip
MESSAGE_CALLS = Histogram(
    "tastemaker_stage_message_calls", "Requests that went to a stage in one message, between processes", ["catalogue", "stage"],
    buckets=(1, 2, 4, 8, 16, 32),
)  # fmt: skip
REPLICAS = Gauge(
    "tastemaker_stage_replicas", "Living replicas, as a gateway knows them", ["catalogue", "stage"],
    multiprocess_mode="mostrecent",
)  # fmt: skip
EMPTY = Counter("tastemaker_gateway_empty", "Lists without any item", ["catalogue"])
RUNGS_USED = Counter("tastemaker_gateway_rungs", "Fallbacks used", ["catalogue", "rung"])
FORCED = Gauge(
    "tastemaker_gateway_forced", "1 where a gateway holds its answers to a rung by the kill switch", ["catalogue", "rung"],
    multiprocess_mode="livemax",
)  # fmt: skip
BREAKER_STATE = Gauge(
    "tastemaker_gateway_breaker_state", "Of a part's circuit breaker: 0 closed, 1 half-open, 2 open; the worst gateway's",
    ["catalogue", "part"], multiprocess_mode="livemax",
)  # fmt: skip
BREAKER_OPENED = Counter(
    "tastemaker_gateway_breaker_opened", "Times that a part's circuit breaker opened", ["catalogue", "part"]
)
IN_FLIGHT = Gauge(
    "tastemaker_gateway_in_flight", "Requests under way: http ones, recommendations, those of them that use stages", ["catalogue", "kind"],
    multiprocess_mode="livesum",
)  # fmt: skip
LOAD_LIMIT = Gauge(
    "tastemaker_gateway_load_limit", "Requests that may use stages at once", ["catalogue"],
    multiprocess_mode="livesum",
)  # fmt: skip
SHED = Counter(
    "tastemaker_gateway_shed", "Requests that got less than the whole graph because of load: which rung, or refused",
    ["catalogue", "priority", "rung"],
)  # fmt: skip
CACHE = Counter(
    "tastemaker_gateway_cached_lists", "Lists answered lately: hit, outdated, miss, unread, not-kept",
    ["catalogue", "outcome"],
)  # fmt: skip
SERVED = Counter(
    "tastemaker_experiment_served", "Answers per variant", ["catalogue", "experiment", "variant"]
)
UNKNOWN_ITEMS = Counter("tastemaker_gateway_unknown_items", "Unknown items named in requests", ["catalogue"])
UNKNOWN_CONTEXT = Counter("tastemaker_gateway_unknown_context_keys", "Ignored context keys", ["catalogue"])
DECISIONS = Counter(
    "tastemaker_gateway_decisions", "Decision records by outcome: logged or dropped", ["catalogue", "outcome"]
)
EVENTS = Counter("tastemaker_events_received", "Events by outcome", ["catalogue", "kind", "outcome"])
SPOOL_BYTES = Gauge(
    "tastemaker_spool_held_bytes", "Events on gateways' disks, on their way to the log", ["catalogue"],
    multiprocess_mode="livesum",
)  # fmt: skip
SPOOL_EVENTS = Counter(
    "tastemaker_spool_events", "Events by outcome: spooled, forwarded", ["catalogue", "outcome"]
)
SPOOL_TORN = Counter("tastemaker_spool_torn_bytes", "Bytes cut off a spool after a crash", ["catalogue"])
CONSUMED = Counter("tastemaker_events_consumed", "Events applied by the consumer", ["catalogue", "kind"])
CONSUMER_LAG = Gauge(
    "tastemaker_events_lag_entries", "Stream entries not yet applied", ["catalogue"], multiprocess_mode="livesum"
)  # fmt: skip
CONSUMER_AGE = Gauge(
    "tastemaker_events_oldest_unapplied_seconds", "Age of the oldest entry that a step found unapplied",
    ["catalogue"], multiprocess_mode="livemax",
)  # fmt: skip
CONSUMER_PARTITIONS = Gauge(
    "tastemaker_events_held_partitions", "Partitions that some consumer reads", ["catalogue"],
    multiprocess_mode="livesum",
)  # fmt: skip
SET_BACK = Counter(
    "tastemaker_events_set_back", "Steps of single partitions that failed while others went on", ["catalogue"]
)
LATE_EVENTS = Counter(
    "tastemaker_events_late", "Events too late to touch state, only archived", ["catalogue"]
)
DEAD_LETTERS = Counter(
    "tastemaker_events_dead_letters", "Log entries that could not be applied", ["catalogue", "stream"]
)
USERS_PUT = Counter("tastemaker_users_put", "Rows of profiles: accepted, rejected", ["catalogue", "outcome"])
MERGES = Counter("tastemaker_users_merged", "Users that were merged into others", ["catalogue"])
ITEM_TOTALS = Counter("tastemaker_features_item_totals", "Items whose totals were made anew", ["catalogue"])
TRENDING_AGE = Gauge(
    "tastemaker_features_trending_age_seconds", "Age of what a process knows of what trends, when it last looked",
    ["catalogue"], multiprocess_mode="livemax",
)  # fmt: skip
ITEMS_AGE = Gauge(
    "tastemaker_features_items_age_seconds", "Since the rankers' items' counters were last compared with the totals",
    ["catalogue"], multiprocess_mode="livemax",
)  # fmt: skip
SKEW = Gauge(
    "tastemaker_features_skew_ratio", "Share of served values that differ from the log's, by feature of the ranker",
    ["catalogue", "feature"], multiprocess_mode="mostrecent",
)  # fmt: skip
SKEW_ROWS = Gauge(
    "tastemaker_features_skew_rows", "Served items that the skew was last measured on", ["catalogue"],
    multiprocess_mode="mostrecent",
)  # fmt: skip
NOT_COUNTED = Counter(
    "tastemaker_experiment_not_counted",
    "Answers to users of the holdout, to testers who asked for a variant, and of interleavings that one ranker alone gave",
    ["catalogue", "kind"],
)  # fmt: skip
REWARDS = Counter("tastemaker_experiment_rewards", "Rewards joined", ["catalogue", "experiment", "variant"])
REWARDS_IGNORED = Counter(
    "tastemaker_experiment_rewards_ignored",
    "Events that might have been rewards, by reason: repeated, late, origin, unjoined, too many",
    ["catalogue", "reason"],
)
PROPENSITY = Gauge(
    "tastemaker_experiment_propensity_ratio", "Share of new units that a variant gets",
    ["catalogue", "experiment", "variant"], multiprocess_mode="mostrecent",
)  # fmt: skip
GUARDRAILS = Gauge(
    "tastemaker_experiment_guardrails", "Guardrails and variants of a running experiment: kept, open, breached",
    ["catalogue", "experiment", "outcome"], multiprocess_mode="mostrecent",
)  # fmt: skip
GUARDRAIL_STOPS = Counter(
    "tastemaker_experiment_guardrail_stops",
    "Experiments that a guardrail stopped",
    ["catalogue", "experiment"],
)
SRM = Gauge(
    "tastemaker_experiment_srm_ratio", "P-value, valid at every look, of the split being what was asked for",
    ["catalogue", "experiment"], multiprocess_mode="mostrecent",
)  # fmt: skip
EXPERIMENT_METRIC = Gauge(
    "tastemaker_experiment_metric", "A variant's metric, in the metric's unit: value, low, high (always valid only in the lift)",
    ["catalogue", "experiment", "variant", "metric", "bound"], multiprocess_mode="mostrecent",
)  # fmt: skip
EXPERIMENT_LIFT = Gauge(
    "tastemaker_experiment_lift_ratio", "Of a variant over the control, with the interval that holds at every look: value, low, high",
    ["catalogue", "experiment", "variant", "metric", "bound"], multiprocess_mode="mostrecent",
)  # fmt: skip
EXPERIMENT_PREFERENCE = Gauge(
    "tastemaker_experiment_preference_ratio",
    "Of an interleaving: share of lists that a variant won less that the control won, with the interval that holds at every look",
    ["catalogue", "experiment", "variant", "bound"], multiprocess_mode="mostrecent",
)  # fmt: skip
EXPERIMENT_ADVICE = Gauge(
    "tastemaker_experiment_advice", "1 for what the newest look advises, 0 for the other verdicts",
    ["catalogue", "experiment", "verdict"], multiprocess_mode="mostrecent",
)  # fmt: skip
POSTERIOR_MEAN = Gauge(
    "tastemaker_experiment_posterior_ratio", "Mean of a Beta(1, 1) posterior: how often a variant's decisions are rewarded",
    ["catalogue", "experiment", "variant"], multiprocess_mode="mostrecent",
)  # fmt: skip
CATALOGUE_ITEMS = Counter(
    "tastemaker_catalogue_items", "Rows put or deleted by outcome: accepted, unchanged, rejected, deleted",
    ["catalogue", "outcome"],
)  # fmt: skip
SOURCES = Counter(
    "tastemaker_retrieval_sources", "Calls to sources of candidates: ok, late, failed",
    ["catalogue", "source", "outcome"],
)  # fmt: skip
SHARDS = Counter(
    "tastemaker_gateway_shards", "Calls to shards of the catalogue: ok, late, failed, or skipped since the shard did not answer lately",
    ["catalogue", "shard", "outcome"],
)  # fmt: skip
UNKNOWN_ROWS = Counter(
    "tastemaker_catalogue_unknown_rows", "Candidates that a process dropped, not knowing them yet", ["catalogue"]
)  # fmt: skip
BUNDLE_GENERATION = Gauge(
    "tastemaker_bundle_live_generation", "Generation of the live aliases", ["catalogue"],
    multiprocess_mode="mostrecent",
)  # fmt: skip
BUNDLE_VERSION = Gauge(
    "tastemaker_bundle_live_version", "Version that an alias answers from; 0 where none does", ["catalogue", "alias"],
    multiprocess_mode="mostrecent",
)  # fmt: skip
BUNDLE_CREATED = Gauge(
    "tastemaker_bundle_created_timestamp_seconds", "When the bundle that an alias answers from was made; 0 where none does",
    ["catalogue", "alias"], multiprocess_mode="mostrecent",
)  # fmt: skip
BUNDLE_REFUSED = Counter(
    "tastemaker_bundle_refused", "Bundles that serving refused, by reason", ["catalogue", "reason"]
)
BUNDLE_LOAD_SECONDS = Histogram(
    "tastemaker_bundle_load_seconds", "From opening a bundle to its first tried answers, in one process",
    ["catalogue"], buckets=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
)  # fmt: skip
SHADOW = Counter(
    "tastemaker_shadow_requests", "Requests for the shadow version: answered, failed, dropped",
    ["catalogue", "outcome"],
)  # fmt: skip
SHADOW_OVERLAP = Histogram(
    "tastemaker_shadow_overlap_ratio", "Share of the shown slate that the shadow's has too", ["catalogue"],
    buckets=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999),
)  # fmt: skip
SHADOW_SECONDS = Histogram(
    "tastemaker_shadow_latency_seconds", "Time of the shadow's stages", ["catalogue"],
    buckets=LATENCY_BUCKETS,
)  # fmt: skip
STATE_BYTES = Gauge(
    "tastemaker_state_used_bytes", "Memory of Redis/Valkey, of all nodes of a cluster: used, limit (0 is none)",
    ["catalogue", "store", "kind"], multiprocess_mode="mostrecent",
)  # fmt: skip
QUALITY = Gauge(
    "tastemaker_quality_exposure", "Of the lists of the last hour: coverage, gini, popular-share (ratios), novelty (bits), reach (items)",
    ["catalogue", "figure"], multiprocess_mode="mostrecent",
)  # fmt: skip
CALIBRATION = Gauge(
    "tastemaker_quality_click_rate_ratio",
    "Of slots with a score of a bucket, in the newest hour whose clicks are in: expected (mean score), observed (share clicked)",
    ["catalogue", "origin", "bucket", "figure"], multiprocess_mode="mostrecent",
)  # fmt: skip
CALIBRATION_SLOTS = Gauge(
    "tastemaker_quality_calibrated_slots", "Seen slots that the click rates of a bucket are of", ["catalogue", "origin", "bucket"],
    multiprocess_mode="mostrecent",
)  # fmt: skip
CALIBRATION_ERROR = Gauge(
    "tastemaker_quality_calibration_error_ratio", "Mean over slots of |observed - expected| click rate of their bucket; NaN under 1000 slots",
    ["catalogue", "origin"], multiprocess_mode="mostrecent",
)  # fmt: skip
TRAINING_LOSS = Gauge(
    "tastemaker_training_loss", "Of the newest epoch of each fit that the home keeps", ["catalogue", "fit"],
    multiprocess_mode="mostrecent",
)  # fmt: skip
TRAINING_EPOCH = Gauge(
    "tastemaker_training_epoch",
    "Number of the newest epoch",
    ["catalogue", "fit"],
    multiprocess_mode="mostrecent",
)
TRAINING_VALIDATION = Gauge(
    "tastemaker_training_validation_ratio", "Validation metric of the newest epoch", ["catalogue", "fit", "metric"],
    multiprocess_mode="mostrecent",
)  # fmt: skip
TRAINING_ROWS = Gauge(
    "tastemaker_training_rows_per_second", "Rows that all ranks went through by second of the newest epoch: a retriever's examples, a ranker's candidates",
    ["catalogue", "fit"], multiprocess_mode="mostrecent",
)  # fmt: skip
TRAINING_TABLES = Gauge(
    "tastemaker_training_table_bytes", "Weights of the embedding tables on a rank", ["catalogue", "fit", "rank"],
    multiprocess_mode="mostrecent",
)  # fmt: skip
TRAINING_CHECKPOINT = Gauge(
    "tastemaker_training_checkpoint_timestamp_seconds", "When the newest checkpoint of a fit was written", ["catalogue", "fit"],
    multiprocess_mode="mostrecent",
)  # fmt: skip
GATES = Gauge(
    "tastemaker_promotion_gates", "What gates said of the version that an alias names: how many of each outcome",
    ["catalogue", "alias", "outcome"], multiprocess_mode="mostrecent",
)  # fmt: skip
GATE_VALUE = Gauge(
    "tastemaker_promotion_gate_value", "The figure that a gate looked at, and its limit, for the version that an alias names",
    ["catalogue", "alias", "gate", "bound"], multiprocess_mode="mostrecent",
)  # fmt: skip


def bounded(value: str, known: frozenset[str]) -> str:
    """`value` where it is `known`, else `other`."""
    return value if value in known else "other"
