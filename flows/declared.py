"""What prefect.yaml declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from desk.errors import BadInput

__all__ = ["POOL", "declared"]

POOL = "onepath"  # the work pool


def declared(path: Path | None = None) -> list[dict[str, Any]]:
    """The deployments as prefect.yaml has them: beside the package in a checkout, inside it in a wheel."""
    here = Path(__file__).parent
    packed = here / "prefect.yaml"
    file = path or (packed if packed.exists() else here.parent / "prefect.yaml")
    if not file.exists():
        raise BadInput(f"{file}: not found; reinstall onepath")
    try:
        return list(yaml.safe_load(file.read_text(encoding="utf-8"))["deployments"])
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise BadInput(f"{file}: not a list of deployments ({' '.join(str(error).split())})") from error
