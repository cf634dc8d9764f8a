"""From results and a declared table to a finished one, and its formats."""
