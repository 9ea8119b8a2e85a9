# Made of `_async/` by `python -m nimbus._unasync`: edit that folder.
"""The client."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from .._operations import Operations
from .._transport import Transport
from ..discovery import Credential
from .sandboxes import Sandboxes
from .services import Services
from .sessions import Sessions
from .tenants import Secrets, Tenants, Volumes


class Nimbus:
    """A client of a Nimbus server.

    What is left out is looked for in the environment and in the credential file, with the first request.
    Use it in a `with` block, or close it.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        tenant_id: str | None = None,
        token: str | None = None,
        api_key: str | None = None,
        credential: Credential | None = None,
        headers: Mapping[str, str] | None = None,
        max_retries: int | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        self.tenant_id = tenant_id
        self._transport = Transport(
            http,
            endpoint=endpoint,
            token=token,
            api_key=api_key,
            credential=credential,
            headers=headers,
            max_retries=max_retries,
        )
        operations = Operations(tenant_id, self._transport.max_retries)
        self.tenants = Tenants(self._transport, operations)
        self.services = Services(self._transport, operations)
        self.sandboxes = Sandboxes(self._transport, operations)
        self.sessions = Sessions(self._transport, operations)
        self.secrets = Secrets(self._transport, operations)
        self.volumes = Volumes(self._transport, operations)

    @classmethod
    def default_client(cls, **options: Any) -> Self:
        """A client whose endpoint and credential have been found already; raises when one is missing."""
        client = cls(**options)
        client._transport.target()
        return client

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
