"""Two experiments, or two cells, beside each other: what differs in their configuration and in their results."""
