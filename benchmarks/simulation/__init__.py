"""Seconds per round and memory: Fedproof beside plain PyTorch, Flower and pfl-research."""
