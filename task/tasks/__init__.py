"""Learning problems: one module each, named as users type it."""
