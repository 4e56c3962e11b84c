"""What the check needs of the machine, and which of it is missing.

It knows names of tools and packages; not what they are for.
"""

from __future__ import annotations

import os
import shutil

TOOLS = {"buildah": "buildah", "debootstrap": "debootstrap", "ip": "iproute2", "runc": "runc"}  # command -> package


def missing() -> str:
    """One sentence about what is missing; "" where nothing is."""
    if os.geteuid() != 0:
        return "needs root, for namespaces and mounts"
    packages = sorted(package for command, package in TOOLS.items() if shutil.which(command) is None)
    return f"needs the Debian packages {' '.join(packages)}" if packages else ""
