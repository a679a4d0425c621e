"""Secure aggregation, ours and Flower's own: ``python -m benchmarks.secagg``."""
