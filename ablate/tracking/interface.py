"""Where the mirror lies, and the command that shows it. Light: the mirror itself loads MLflow."""

from __future__ import annotations

import sys
from pathlib import Path

from ablate.store import Store


def database(store: Store) -> Path:
    """Return the SQLite file of a store's mirror; it can be deleted and is rebuilt."""
    return store.cache / "mlflow.db"


def artifacts(store: Store) -> Path:
    """Return the folder of the mirror's artifacts."""
    return store.cache / "mlflow-artifacts"


def tracking_uri(store: Store) -> str:
    """Return MLflow's name of the mirror's database."""
    return f"sqlite:///{database(store)}"


def ui_command(store: Store, *, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """Return the command line that serves MLflow's pages on a store's mirror."""
    return [
        sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", tracking_uri(store),
        "--default-artifact-root", artifacts(store).as_uri(), "--host", host, "--port", str(port),
    ]  # fmt: skip
