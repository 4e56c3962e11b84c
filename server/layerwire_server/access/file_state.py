"""What tells that a file was changed or replaced, without reading it.

It knows the file system; nothing of what is in files.
"""

from __future__ import annotations

from pathlib import Path


def file_state(path: Path) -> tuple[int, int, int] | None:
    """What is other after a change, or after a link leads elsewhere; None if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
