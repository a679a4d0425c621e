"""The server's part in sums that hide single answers from it."""
