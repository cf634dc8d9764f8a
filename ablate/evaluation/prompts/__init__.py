"""Prompts of the suites that our own engine runs: each function turns data into items, in the data's order."""
