"""Clients and the nodes that serve them: roster, sampling, messages, validation."""
