"""Privacy: what a training releases, what that costs, and where a client writes it down."""
