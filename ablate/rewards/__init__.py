"""Rewards: one interface, ``score(prompts, responses) -> floats``, whatever gives the score."""
