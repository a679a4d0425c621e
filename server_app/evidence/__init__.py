"""What a run leaves behind, and what the user sees of it."""
