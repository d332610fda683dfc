"""Logs and metrics: they receive values and decide nothing."""
