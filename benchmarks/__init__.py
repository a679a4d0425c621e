"""Measurements: each module is a command, its figures are in results/."""
