"""Messages to people, through apprise. Addresses hold secrets: they are filled in when a message is sent, and are never
logged, stored or shown; a fault names an address by its place and its service."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence

from pipeline.errors import UserError


def send(addresses: Sequence[str], title: str, body: str) -> list[str]:
    """Send a message to every address; returns what went wrong, a line each. Nothing is raised.

    Args:
        addresses: apprise URLs, in which ${NAME} stands for an environment variable.
    """
    faults = []
    for place, address in enumerate(addresses, start=1):
        try:
            _send_one(address, title, body)
        except UserError as fault:
            faults.append(f"notification {place} failed: {fault}")
        except Exception as fault:  # a plug-in of any kind may fail in any way, and its words may hold the address
            faults.append(f"notification {place} failed: {type(fault).__name__}")
    return faults


def filled(address: str) -> str:
    """The address with its environment variables.

    Raises:
        UserError: one of them isn't set.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise UserError(f"the environment variable {name} is not set")
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", value, address)


def _send_one(address: str, title: str, body: str) -> None:
    import apprise

    for name in ("apprise", "urllib3", "httpx"):  # debug logs would hold the address
        logging.getLogger(name).setLevel(logging.CRITICAL)
    service = apprise.Apprise.instantiate(filled(address), suppress_exceptions=True)
    if service is None:
        raise UserError("it is not the address of a service that apprise knows (https://appriseit.com)")
    if not service.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT):
        raise UserError(f"{service.service_name} did not take it")
