"""What clients of a node do so that the server sees sums only."""
