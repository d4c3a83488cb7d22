"""Tastemaker: a self-hosted recommender platform. This package is the library: no Ray, no HTTP server."""

__version__ = "0.1.0"
