"""Reads the chart as Kubernetes would: what it renders, what stands in it, what its parts refer to."""
