"""What users say: Hydra groups, typed settings, and what is refused."""
