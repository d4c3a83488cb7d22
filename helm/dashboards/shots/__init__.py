"""Pictures of the dashboards: drawn by Grafana's own components from a running Prometheus (`make dashboard-shots`)."""
