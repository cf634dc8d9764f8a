"""Mirrors of the store in experiment trackers; the store stays the only record."""

import os

# Read when MLflow is imported: it would report its use over the network, which nobody asked for.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# A server's client would print two lines for every run.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

# `mlflow ui` would start eight processes that wait for jobs, which a mirror has none of.
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
