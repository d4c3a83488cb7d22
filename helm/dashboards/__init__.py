"""Grafana dashboards as code: `python -m helm.dashboards` writes helm/tastemaker/dashboards/*.json."""
