"""A zip with what is needed to check an experiment's tables, and its check."""
