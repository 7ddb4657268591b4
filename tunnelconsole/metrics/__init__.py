"""Metrics of a running engine for Prometheus, over HTTP. Nothing of it is loaded where the configuration wants none."""
