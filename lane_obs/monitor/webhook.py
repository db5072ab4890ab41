"""Tells a webhook of alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lane_obs.config import Duration, check_name
from lane_obs.monitor.payload import to_webhook
from lane_obs.monitor.post import Post, check_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.monitor.alert import Alert


class WebhookNotifier:
    """Posts alerts as JSON in the form in which Alertmanager posts them (payload version 4), so that its receivers fit.

    An answer of 200 to 299 is success. 408, 429, 500 and above, and no answer at all are failures that are tried again;
    any other answer is not.

    Args:
        url: the address, http or https. Neither it nor the headers are ever shown, but for scheme, host and port.
        headers: sent with each request.
        timeout: limit on one try.
        name: what events and metrics call it; the `receiver` in what it sends.
        generator_url: where the alerts come from, such as a dashboard's address.
        external_url: where the one who sends them is.

    Raises:
        ConfigError: a value that is not allowed.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: Duration = 10.0,
        name: str = "webhook",
        generator_url: str = "",
        external_url: str = "",
    ) -> None:
        self.name = check_name("name", name)
        self._generator_url = check_text("generator_url", generator_url)
        self._external_url = check_text("external_url", external_url)
        self._post = Post(url, headers, timeout)
        self.timeout = self._post.timeout

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} to {self._post.origin}>"

    async def notify(self, alerts: Sequence[Alert]) -> None:
        """Posts them as one group."""
        if alerts:
            urls = {"generator_url": self._generator_url, "external_url": self._external_url}
            await self._post.send(to_webhook(alerts, receiver=self.name, **urls))

    async def close(self) -> None:
        """Lets go of everything."""
        await self._post.close()
