"""Mirrors of the store in experiment trackers; the store stays the only record."""

import os

# Read when MLflow is imported: it would report its use over the network, which nobody asked for.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# A server's client would print two lines for every run.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
