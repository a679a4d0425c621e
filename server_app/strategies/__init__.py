"""Aggregation strategies: one module each, named as users type it.

A module has ``build(options)``, which returns a Flower strategy, and says ``SUM_SUFFICES = True``
if the strategy needs no more than the weighted mean of the models: then nodes and workers add up
what their clients trained, and the server never holds one model per client.
"""
