"""What is done to updates before any strategy: each ``defence=`` is a module of this package.

A module has ``build(options, seed)``, which returns a `Defence`.
"""
