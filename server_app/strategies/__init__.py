"""Aggregation strategies: one module each, named as users type it."""
