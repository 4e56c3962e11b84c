"""The image, built and started for real: `make image-check`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from deploy.image_check import needs

ROOT = Path(__file__).parents[2]


@pytest.mark.debian
@pytest.mark.skipif(bool(needs.missing()), reason=f"image-check: {needs.missing()}")
@pytest.mark.timeout(1800)
def test_the_image_holds():
    done = subprocess.run([sys.executable, "-m", "deploy.image_check"], cwd=ROOT, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "SKIPPED" not in done.stdout
