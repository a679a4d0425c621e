"""Distributed differential privacy: integer noise that clients add before a secure sum.

Kairouz, Liu, Steinke 2021, "The Distributed Discrete Gaussian Mechanism for Federated Learning
with Secure Aggregation", and Agarwal, Kairouz, Liu 2021, "The Skellam Mechanism for
Differentially Private Federated Learning".
"""
