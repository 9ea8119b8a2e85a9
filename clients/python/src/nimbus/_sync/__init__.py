# Made of `_async/` by `python -m nimbus._unasync`: edit that folder.
"""The blocking client."""

from .client import Nimbus
from .commands import Command
from .files import Files
from .listing import Listing
from .sandboxes import Sandbox, Sandboxes
from .services import Services
from .sessions import Session, Sessions, Stdio
from .tenants import Secrets, Tenants, Volumes

__all__ = [
    "Command",
    "Files",
    "Listing",
    "Nimbus",
    "Sandbox",
    "Sandboxes",
    "Secrets",
    "Services",
    "Session",
    "Sessions",
    "Stdio",
    "Tenants",
    "Volumes",
]
