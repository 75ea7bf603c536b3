"""Hub: what the routes of every module work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Request

from edge.errors import HubError
from hub.ingest import Ingest
from hub.settings import Settings
from hub.store_registry import Registry

if TYPE_CHECKING:
    from edge.bundle import Bundle
    from hub.archive import Archive


@dataclass(frozen=True, slots=True)
class Hub:
    """The opened parts of a hub: `app.state.hub`. bundle: of the codes that are searched, None = no search."""

    registry: Registry
    archive: Archive
    bundle: Bundle | None
    settings: Settings
    ingest: Ingest
    now_ns: Callable[[], int]

    @property
    def required_bundle(self) -> Bundle:
        """Return the bundle. Raises HubError where there is none."""
        if self.bundle is None:
            raise HubError(
                "bundle: expected one that turns sentences into codes, found none; run: edge-hub serve --bundle FOLDER"
            )
        return self.bundle


def hub_of(request: Request) -> Hub:
    """Return the parts of the hub that a request came to."""
    hub = request.app.state.hub
    assert isinstance(hub, Hub)
    return hub
