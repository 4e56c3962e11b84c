"""Networks of torch.nn as data: `export` makes a program and weights of a module, `deploy` puts them on a server.

It knows torch, which it imports when it is called, and messages; the server is reached through a `Store` only.
"""

from __future__ import annotations

from layerwire.deploy.exported import Exported, export
from layerwire.deploy.refusal import UnsupportedCall, UnsupportedModuleError
from layerwire.deploy.remote import AsyncRemoteProgram, RemoteProgram, Report, by_name, deploy
from layerwire.deploy.store import Store
from layerwire.uploads import Progress, Uploaded

__all__ = [
    "AsyncRemoteProgram",
    "Exported",
    "Progress",
    "RemoteProgram",
    "Report",
    "Store",
    "UnsupportedCall",
    "UnsupportedModuleError",
    "Uploaded",
    "by_name",
    "deploy",
    "export",
]
