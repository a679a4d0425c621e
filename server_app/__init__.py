"""The Flower ServerApp: the round loop, its evidence, and the fedproof command."""
