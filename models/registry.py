"""MLflow's model registry, on a database of the ledger's PostgreSQL."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from desk.errors import BadInput
from desk.ledger.connecting import place
from desk.ledger.engine import exclusively

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["initialise_registry", "registry_client"]


def initialise_registry(url: str) -> None:
    """Make MLflow's tables in the database at `url` (`postgresql+psycopg://`), or bring them up to date.

    Takes 3 to 5 s on a new database. Several processes at once take turns: MLflow itself fails when two
    initialise together. Raises BadInput when the database cannot be used.
    """
    _quiet()
    from mlflow.db import commands
    from mlflow.exceptions import MlflowException

    with exclusively(url, "mlflow db upgrade"):
        try:
            # In this process, not as a command: a command line, and a password in it, is for all to see.
            commands.main(["upgrade", url], standalone_mode=False)
        except MlflowException as error:
            raise BadInput(f"registry {place(url)}: cannot be initialised ({error.message})") from error


def registry_client(url: str) -> MlflowClient:
    """A client of the registry at `url`, without a server between. The registry must be initialised."""
    _quiet()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=url, registry_uri=url)


def _quiet() -> None:
    """MLflow reads these as it is imported: no telemetry, no progress bars."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
