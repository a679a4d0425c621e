"""Names among metrics that are no objective's."""

GLOBAL = "global_"
"""Before the names of the global model's figures, where clients have models of their own."""
CLUSTER = "cluster"
"""Which of several models a client chose."""
