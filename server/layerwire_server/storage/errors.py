"""What the store refuses, each reason a class of its own.

It knows neither gRPC nor the callers; beside each class stands the gRPC status that store.proto promises for it.

    StoreError                  INTERNAL               any of these, or what the disk did that nobody foresaw
    +-- InvalidNameError        INVALID_ARGUMENT       a name, a digest, a version that breaks the rule
    +-- HeaderError             INVALID_ARGUMENT       no safetensors file, or none that is taken
    +-- DigestError             INVALID_ARGUMENT       other bytes than the digest or the size say
    +-- MissingError            NOT_FOUND              no such name, version or digest
    +-- ConflictError           FAILED_PRECONDITION    the version is there already, or is the default one
    +-- ReadOnlyError           FAILED_PRECONDITION    the directory can't be written
    +-- BusyError               UNAVAILABLE            another upload of the same file is going on
    +-- StoreFullError          RESOURCE_EXHAUSTED     the disk or the store's own limit is full
    +-- DamagedError            DATA_LOSS              a file isn't what was put there
"""

from __future__ import annotations


class StoreError(Exception):
    """The store can't do what was asked; the message says why, in one sentence."""


class InvalidNameError(StoreError, ValueError):
    """A name, a digest or a version breaks the rule of store.proto."""


class HeaderError(StoreError, ValueError):
    """What should be a safetensors file is none, or none that is taken."""


class DigestError(StoreError, ValueError):
    """The bytes that came are others than the digest or the size says."""


class MissingError(StoreError, LookupError):
    """There is no such name, version or digest."""


class ConflictError(StoreError):
    """The version is there already, or can't be deleted because names stand on it."""


class ReadOnlyError(StoreError):
    """The directory is mounted read-only, or belongs to somebody else."""


class BusyError(StoreError):
    """Another upload of the same file is going on; it may be asked for again later."""


class StoreFullError(StoreError):
    """The disk is full, or the store has reached the bytes that it may take."""


class DamagedError(StoreError):
    """A file in the store isn't what was put there."""
