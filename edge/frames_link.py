"""Where frames go and come from: frames:///dev/ttyUSB0?bytes=340&baud=9600&hub=<64 hexadecimal digits>&inbox=/path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from edge import require
from edge.errors import ConfigError
from edge.frames import MAX_FRAME_BYTES, MIN_FRAME_BYTES, SATELLITE_BYTES

_BAUDS = (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)


@dataclass(frozen=True, slots=True)
class FrameLink:
    """Where frames go. place: file or serial device; inbox: file in which the modem's program puts what comes, None = nothing does.

    hub_public: 32 bytes; n_bytes: of the largest frame; baud: of a serial device.
    """

    place: Path
    hub_public: bytes
    n_bytes: int = SATELLITE_BYTES
    baud: int = 9600
    inbox: Path | None = None

    def __post_init__(self) -> None:
        require.integer(ConfigError, "bytes", self.n_bytes, MIN_FRAME_BYTES, MAX_FRAME_BYTES)
        require.one_of(ConfigError, "baud", self.baud, _BAUDS)
        if len(self.hub_public) != 32:
            raise ConfigError(f"hub: expected 64 hexadecimal digits, found {len(self.hub_public)} bytes")

    @classmethod
    def of_url(cls, url: str) -> FrameLink:
        """Return the link in a URL. Raises ConfigError."""
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = sorted(set(options) - {"bytes", "baud", "hub", "inbox"})
        if parts.scheme != "frames" or parts.netloc or not parts.path.startswith("/") or unknown:
            raise ConfigError(
                f"hub: expected frames:///path?bytes=340&baud=9600&hub=KEY&inbox=/path, found {url!r}"
            )
        try:
            return cls(
                Path(parts.path),
                bytes.fromhex(options["hub"]),
                int(options.get("bytes", SATELLITE_BYTES)),
                int(options.get("baud", 9600)),
                Path(options["inbox"]) if "inbox" in options else None,
            )
        except (ValueError, KeyError) as error:
            raise ConfigError(
                f"hub: expected hub=<64 hexadecimal digits> and whole numbers, found {url!r}"
            ) from error
