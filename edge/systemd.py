"""Telling systemd that the recorder is ready and healthy (sd_notify(3)); without systemd, nothing happens."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(message: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send READY=1, WATCHDOG=1 or STOPPING=1 to the service manager; return whether there was one to tell.

    Never raises: a recorder must not stop because nobody listens.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # Linux: an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0)) as channel:
            channel.sendto(message.encode(), address)
    except OSError:
        return False
    return True
