"""Searches over a grid: Optuna asks for cells of the ordinary plan, and hears what they reached."""
