"""Evaluation: prompts from data, responses and likelihoods from models, grades from those."""
