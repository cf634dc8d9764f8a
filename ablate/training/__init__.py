"""Training stages: losses, log-probabilities, checkpoints, and one trainer for every offline method."""
