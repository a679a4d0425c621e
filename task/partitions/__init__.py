"""Ways of dealing rows to clients: one module each, named as users type it."""
