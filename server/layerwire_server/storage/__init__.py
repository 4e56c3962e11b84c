"""The store's files: weights, programs, their names, and uploads.

It knows neither torch nor gRPC; gateway and workers use it at the same time, each in its own process.
"""

from layerwire.wire.safetensors import TensorEntry
from layerwire_server.storage.content import check_digest
from layerwire_server.storage.durable import Piece
from layerwire_server.storage.errors import (
    BusyError,
    ConflictError,
    DamagedError,
    DigestError,
    HeaderError,
    InvalidNameError,
    MissingError,
    ReadOnlyError,
    StoreError,
    StoreFullError,
)
from layerwire_server.storage.imports import import_file
from layerwire_server.storage.names import NamedProgram, NamedTensor, ProgramVersion, check_name, page
from layerwire_server.storage.safetensors import read_header, write_safetensors
from layerwire_server.storage.store import Store
from layerwire_server.storage.uploads import Progress, Upload, Uploads, part_of

__all__ = [
    "BusyError",
    "ConflictError",
    "DamagedError",
    "DigestError",
    "HeaderError",
    "InvalidNameError",
    "MissingError",
    "NamedProgram",
    "NamedTensor",
    "Piece",
    "ProgramVersion",
    "Progress",
    "ReadOnlyError",
    "Store",
    "StoreError",
    "StoreFullError",
    "TensorEntry",
    "Upload",
    "Uploads",
    "check_digest",
    "check_name",
    "import_file",
    "page",
    "part_of",
    "read_header",
    "write_safetensors",
]
