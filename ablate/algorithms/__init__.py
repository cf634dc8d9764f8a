"""One light file per method: its parameters, formula, the stages it needs, the module of its training step."""
