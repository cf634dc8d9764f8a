"""What must be done: stages and their identity, the graph that makes an experiment's cells."""
