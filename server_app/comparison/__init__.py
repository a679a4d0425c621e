"""``compare=true``: what federation gains its clients, and what it costs."""
