"""How the embedded data was made from its origin."""
