"""What a run's server does for privacy: accounts, noise on sums, plans, and showing ledgers."""
