"""Offline evaluation: metrics per user and per list, and their intervals."""
