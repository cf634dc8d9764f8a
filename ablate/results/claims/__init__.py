"""Sentences about an experiment's numbers, and what the runs say of them."""
