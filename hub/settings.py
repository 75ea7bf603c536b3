"""Settings of one hub: where its files lie, where it listens, and how much it takes."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from edge import require
from edge.errors import UsageError

MAX_BODY_BYTES = 8 << 20  # of one request
DEFAULT_PORT = 8077
HUB_KEY = Path("keys", "downlink.pem")  # below updates/, where it is never served


@dataclass(frozen=True, slots=True)
class Settings:
    """How a hub runs.

    folder: of everything it keeps; host, port: where it listens, port 0 = any free one; behind_proxy: a proxy passes on what
    others send; max_body_bytes: of one request, max_bodies_bytes: of all that are being read; quota_bytes_per_day: of one recorder; max_waiting: batches that wait for the
    disk before more are told to come again.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    behind_proxy: bool = False
    max_body_bytes: int = MAX_BODY_BYTES
    max_bodies_bytes: int = 32 * MAX_BODY_BYTES
    quota_bytes_per_day: int = 1 << 30
    max_waiting: int = 256

    def __post_init__(self) -> None:
        require.text(UsageError, "host", self.host)
        require.integer(UsageError, "port", self.port, 0, 65_535)
        require.integer(UsageError, "max_body_bytes", self.max_body_bytes, 1024, 1 << 30)
        require.integer(UsageError, "max_bodies_bytes", self.max_bodies_bytes, self.max_body_bytes, 1 << 40)
        require.integer(UsageError, "quota_bytes_per_day", self.quota_bytes_per_day, 1, 1 << 50)
        require.integer(UsageError, "max_waiting", self.max_waiting, 1, 1 << 20)

    @property
    def registry_path(self) -> Path:
        """Return where the registry is."""
        return self.folder / "hub.sqlite"

    @property
    def archive_path(self) -> Path:
        """Return where the archive's default engine keeps its codes."""
        return self.folder / "archive.sqlite"

    @property
    def clips_folder(self) -> Path:
        """Return where clips are kept."""
        return self.folder / "clips"

    @property
    def updates_folder(self) -> Path:
        """Return where pairs of bundle and watchlist are published."""
        return self.folder / "updates"

    @property
    def hub_key_path(self) -> Path:
        """Return where the key is that signs what goes by radio and by MQTT."""
        return self.updates_folder / HUB_KEY

    @property
    def frames_path(self) -> Path:
        """Return where is kept what radio frames rely on."""
        return self.folder / "frames.sqlite"

    @property
    def token_path(self) -> Path:
        """Return where the token of the page and of /api is."""
        return self.folder / "token"

    @property
    def local_is_free(self) -> bool:
        """Return whether people at the hub's own computer need no token: nobody else can reach it."""
        if self.behind_proxy:
            return False
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False
