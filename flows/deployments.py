"""Puts the deployments of prefect.yaml on the Prefect server. The same as `prefect --no-prompt deploy --all`.

Done by a call, so that `onepath up` imports the flows while the server is still starting, and may register them with
their schedules asleep.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.schedules import Cron

from desk.errors import BadInput
from flows.declared import POOL, declared
from flows.logs import log_to

__all__ = ["main", "register"]

log = logging.getLogger("flows.deployments")  # it may run as __main__

SERVER_S_MAX = 120.0
ASLEEP = "asleep"  # tag of deployments whose schedules were registered inactive


def register(deployments: Sequence[dict[str, Any]], *, asleep: bool = False) -> list[str]:
    """Make or update the work pool and the deployments, waiting for the server. Returns their names, "trading/trading".

    `asleep` registers schedules that start nothing, until registered again without it or resumed in the UI.
    Otherwise a schedule that someone paused in the UI stays paused.
    """
    flows: list[Flow[..., Any]] = [
        load_flow_from_entrypoint(d["entrypoint"], use_placeholder_flow=False) for d in deployments
    ]
    with get_client(sync_client=True) as client:
        _wait_for(client)
        try:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        except ObjectAlreadyExists:
            log.debug("work_pool.found", extra={"pool": POOL})
        names = []
        for deployment, flow in zip(deployments, flows, strict=True):
            name = f"{flow.name}/{deployment['name']}"
            paused = _paused(client, name)
            RunnerDeployment.from_entrypoint(
                entrypoint=deployment["entrypoint"],
                name=deployment["name"],
                description=deployment.get("description"),
                tags=[*deployment.get("tags", []), *([ASLEEP] if asleep else [])],
                parameters=deployment.get("parameters"),
                schedules=[
                    Cron(cron["cron"], timezone=cron["timezone"], active=not asleep and cron["cron"] not in paused)
                    for cron in deployment.get("schedules", [])
                ],
                work_pool_name=deployment["work_pool"]["name"],
                work_queue_name=deployment["work_pool"]["work_queue_name"],
            ).apply()
            names.append(name)
    log.info("deployments.registered", extra={"names": names, "asleep": asleep})
    return names


def _paused(client: SyncPrefectClient, name: str) -> set[str]:
    """The crons of a registered deployment that a person has paused."""
    try:
        found = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return set()
    if ASLEEP in found.tags:
        return set()
    return {getattr(schedule.schedule, "cron", "") for schedule in found.schedules if not schedule.active}


def _wait_for(client: SyncPrefectClient) -> None:
    deadline = time.monotonic() + SERVER_S_MAX
    while (problem := client.api_healthcheck()) is not None:
        if time.monotonic() > deadline:
            raise BadInput(f"Prefect server {client.api_url}: no answer in {SERVER_S_MAX:g} s ({problem})")
        time.sleep(0.2)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m flows.deployments`, with PREFECT_API_URL set. Waits for the server."""
    parser = argparse.ArgumentParser(prog="python -m flows.deployments", description=__doc__)
    parser.add_argument("--asleep", action="store_true", help="schedules start nothing until resumed")
    parser.add_argument("--file", type=Path, help="another prefect.yaml")
    options = parser.parse_args(arguments)
    log_to(logging.StreamHandler())
    register(declared(options.file), asleep=options.asleep)


if __name__ == "__main__":
    main()
