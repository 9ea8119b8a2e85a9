"""The async client, for asyncio and trio. `_sync` is made of this folder by `python -m nimbus._unasync`."""

from .client import AsyncNimbus
from .commands import AsyncCommand
from .files import AsyncFiles
from .listing import AsyncListing
from .sandboxes import AsyncSandbox, AsyncSandboxes
from .services import AsyncServices
from .sessions import AsyncSession, AsyncSessions, AsyncStdio
from .tenants import AsyncSecrets, AsyncTenants, AsyncVolumes

__all__ = [
    "AsyncCommand",
    "AsyncFiles",
    "AsyncListing",
    "AsyncNimbus",
    "AsyncSandbox",
    "AsyncSandboxes",
    "AsyncSecrets",
    "AsyncServices",
    "AsyncSession",
    "AsyncSessions",
    "AsyncStdio",
    "AsyncTenants",
    "AsyncVolumes",
]
