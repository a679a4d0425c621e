"""Whether federation is worth it: the maths, on plain arrays and without Flower or torch."""
