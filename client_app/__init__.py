"""The Flower ClientApp: a node that serves its clients."""
