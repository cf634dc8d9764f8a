"""Where the mirror lies, the command that shows it, and its views. Light: the mirror itself loads MLflow."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import quote, urlsplit

from ablate.store import Store

VIEWS = (
    ("Policies", "tags.`ablate.subject` = 'policy'"),
    ("Reward models", "tags.`ablate.subject` = 'reward_model'"),
    ("Trials", "tags.`ablate.kind` = 'trial'"),
    ("Training", "tags.`ablate.kind` = 'train'"),
    ("Evaluations", "tags.`ablate.kind` = 'evaluate'"),
    ("Failed", "attributes.status = 'FAILED'"),
)
"""Title and search of the runs that one looks at together."""


def database(store: Store) -> Path:
    """Return the SQLite file of a store's mirror; it can be deleted and is rebuilt."""
    return store.cache / "mlflow.db"


def artifacts(store: Store) -> Path:
    """Return the folder of the mirror's artifacts, which are links into the store."""
    return store.cache / "mlflow-artifacts"


def tracking_uri(store: Store) -> str:
    """Return MLflow's name of the mirror's database."""
    return f"sqlite:///{database(store)}"


def shown(uri: str) -> str:
    """Return an address without the name and password that it may carry."""
    before, at, place = urlsplit(uri).netloc.rpartition("@")
    return uri.replace(f"{before}{at}{place}", place, 1) if at else uri


def view_link(experiment_id: str, search: str) -> str:
    """Return the address, from the server's root, of an experiment's runs that a search finds."""
    return f"#/experiments/{experiment_id}/runs?searchFilter={quote(search)}"


def views_note(question: str, experiment_id: str) -> str:
    """Return the text that MLflow shows above an experiment: its question, and its views as links (Markdown)."""
    links = " · ".join(f"[{title}]({view_link(experiment_id, search)})" for title, search in VIEWS)
    return f"{question}\n\n{links}" if question else links


def ui_command(store: Store, *, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """Return the command line that serves MLflow's pages on a store's mirror."""
    return [
        sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", tracking_uri(store),
        "--default-artifact-root", artifacts(store).as_uri(), "--host", host, "--port", str(port), "--workers", "1",
    ]  # fmt: skip
