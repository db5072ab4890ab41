"""Asks a process of this machine for one of its pages."""

from __future__ import annotations

import http.client
import urllib.parse
from typing import Final

_SECONDS: Final = 2.0


def fetch(url: str, path: str, *, accept: str = "*/*") -> tuple[int, bytes]:
    """The status and body of a page; through no proxy, whatever the environment says.

    Args:
        url: where the process serves.
        path: the page.
        accept: in which format.

    Raises:
        OSError: it gave no answer in time.
    """
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=_SECONDS)
    try:
        connection.request("GET", path, headers={"accept": accept})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP: {error!r}") from error
    finally:
        connection.close()
