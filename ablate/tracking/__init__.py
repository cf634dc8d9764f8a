"""Mirrors of the store in experiment trackers; the store stays the only record."""

import os

# Read when MLflow is imported: it would report its use over the network, which nobody asked for.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
