"""The pocket world: a small instruction language with known ground truth, and preference data made from it."""
