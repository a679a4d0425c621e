"""Flower's real programs on loopback: the same application, simulated by Flower and deployed."""
