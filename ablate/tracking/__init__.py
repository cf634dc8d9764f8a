"""Mirrors of the store in experiment trackers; the store stays the only record."""
