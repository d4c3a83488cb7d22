"""Values that the chart refuses, and what it says: unknown keys and wrong types by its schema, half-told switches by name."""

from typing import Any

import pytest
from chart.rendering import template

BY_THE_SCHEMA: list[tuple[dict[str, Any], str]] = [
    ({"servign": {}}, "at '': additional properties 'servign' not allowed"),
    (
        {"serving": {"workers": {"replica": 3}}},
        "'/serving/workers': additional properties 'replica' not allowed",
    ),
    (
        {"serving": {"workers": {"replicas": "three"}}},
        "'/serving/workers/replicas': got string, want integer",
    ),
    ({"serving": {"workers": {"replicas": -1}}}, "'/serving/workers/replicas': minimum: got -1, want 0"),
    ({"serving": {"image": "cuda"}}, "'/serving/image': value must be one of 'serve', 'train'"),
    (
        {"serving": {"upgrade": {"strategy": "Recreate"}}},
        "'/serving/upgrade/strategy': value must be one of 'NewCluster', 'None'",
    ),
    (
        {"images": {"pullPolicy": "Sometimes"}},
        "'/images/pullPolicy': value must be one of 'IfNotPresent', 'Always', 'Never'",
    ),
    ({"images": {"serve": {"digest": 7}}}, "'/images/serve/digest': got number, want string"),
    ({"valkey": {"enabled": "yes"}}, "'/valkey/enabled': got string, want boolean"),
    ({"jobs": {"retrain": {"args": "retrain x"}}}, "'/jobs/retrain/args': got string, want array"),
    ({"ingress": {"paths": ["/admin"]}}, "'/ingress': additional properties 'paths' not allowed"),
    ({"retention": {"mlflowDeletedDays": 1.5}}, "'/retention/mlflowDeletedDays': got number, want integer"),
    ({"config": {"retention": {"bundles": 0}}}, "'/config/retention/bundles'"),
    ({"backup": {"schedule": "daily"}}, "'/backup/schedule': 'daily' does not match pattern"),
    ({"home": {"size": "many"}}, "'/home/size': 'many' does not match pattern"),
    (
        {"monitoring": {"runbookUrl": "docs/runbooks"}},
        "'/monitoring/runbookUrl': 'docs/runbooks' does not match pattern",
    ),
    ({"config": {"gateway": {"prot": 1}}}, "'/config/gateway': additional properties 'prot' not allowed"),
    ({"config": {"gateway": {"port": "eight"}}}, "'/config/gateway/port': got string, want integer"),
    (
        {"config": {"logging": {"format": "xml"}}},
        "'/config/logging/format': value must be one of 'text', 'json'",
    ),
    (
        {"config": {"gateway": {"host": "127.0.0.1"}}},
        "'/config/gateway': additional properties 'host' not allowed",
    ),
    (
        {"config": {"ray": {"address": "ray://elsewhere"}}},
        "'/config/ray': additional properties 'address' not allowed",
    ),
    (
        {"serving": {"workers": {"resources": {"requests": {"cpus": 1}}}}},
        "'cpus' does not match pattern",
    ),
    ({"config": {"home": "/other"}}, "'/config': additional properties 'home' not allowed"),
    (
        {"config": {"state": {"password": "x"}}},
        "'/config/state': additional properties 'password' not allowed",
    ),
]
HALF_TOLD: list[tuple[dict[str, Any], str]] = [
    (
        {"valkey": {"enabled": False}},
        "valkey.external.existingSecret is needed where valkey.enabled is false",
    ),
    ({"mlflow": {"enabled": False}}, "mlflow.external.trackingUri is needed where mlflow.enabled is false"),
    (
        {"valkey": {"tls": {"enabled": True}}},
        "valkey.tls.existingSecret is needed where valkey.tls.enabled is true",
    ),
    (
        {"postgresql": {"enabled": True, "tls": {"enabled": True}}},
        "postgresql.tls.existingSecret is needed where postgresql.tls.enabled is true",
    ),
    (
        {"postgresql": {"external": {"enabled": True}}},
        "mlflow.existingSecret is needed where postgresql.external.enabled is true",
    ),
    (
        {"postgresql": {"enabled": True, "external": {"enabled": True}}},
        "postgresql.enabled and postgresql.external.enabled are both true",
    ),
    (
        {"cache": {"enabled": True}, "valkey": {"enabled": False, "external": {"existingSecret": "urls"}}},
        "cache.enabled is true and valkey.enabled false",
    ),
    ({"ingress": {"enabled": True}}, "ingress.host is needed where ingress.enabled is true"),
]


def _id(given: object) -> str | None:
    return str(given) if isinstance(given, dict) else None


@pytest.mark.parametrize(("values", "message"), [*BY_THE_SCHEMA, *HALF_TOLD], ids=_id)
def test_refused(values: dict[str, Any], message: str) -> None:
    answer = template(values)
    assert answer.returncode != 0
    assert answer.stdout == ""
    assert message in answer.stderr


def test_another_kubernetes_is_refused() -> None:
    answer = template({}, kubernetes="1.28.0")
    assert (
        "chart requires kubeVersion: >=1.29.0-0 which is incompatible with Kubernetes v1.28.0"
        in answer.stderr
    )
