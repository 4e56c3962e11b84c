"""Networks of torch.nn as data: `export` makes a program and weights of a module.

It knows torch, which it imports when it is called, and messages; servers are deploy's.
"""

from __future__ import annotations

from layerwire.export.exported_module import ExportedModule, export
from layerwire.export.refusal import UnsupportedCall, UnsupportedModuleError

__all__ = ["ExportedModule", "UnsupportedCall", "UnsupportedModuleError", "export"]
