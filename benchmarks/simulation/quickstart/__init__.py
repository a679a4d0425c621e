"""A small Flower app, written as Flower's PyTorch quickstart writes it."""
