"""Aggregation that bears some liars: pure functions of stacked updates, shape (clients, p).

An update is a client's model minus the global model. All of these hold for any linear coordinates,
so a norm, a distance and an angle speak of what a client changed and not of where it started.
"""
