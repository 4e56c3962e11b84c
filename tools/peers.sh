#!/bin/sh
# Makes .peers, an environment of its own, with the servers that `make bench` compares with, and installs the driver
# that calls them from Debian where it may. What can't be had is said, and `make bench` leaves it out.
#
# The versions are those that were measured. Triton's server and its Python backend are inside pytriton's wheel, which
# has them for Linux on x86-64 and for libpython 3.8 to 3.13.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${1:-python3}
MOSEC=mosec==0.9.8
TRITON=nvidia-pytriton==0.7.0
PIP=".peers/bin/python -m pip install --quiet --disable-pip-version-check"

[ -x .peers/bin/python ] || "$PYTHON" -m venv .peers
# torch first and alone, the version that the project uses, or another one could be chosen.
$PIP "$(grep '^torch==' constraints.txt)"
for peer in $MOSEC $TRITON; do
    $PIP "$peer" || echo "peers: $peer could not be installed"
done

# Triton's Python backend is linked with the system's libpython.
library=libpython$(.peers/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
missing=
command -v h2load >/dev/null || missing=nghttp2-client
ldconfig -p | grep -q "$library.so" || missing="$missing $library"
if [ -n "$missing" ]; then
    as_root=
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    # shellcheck disable=SC2086  # words of a list
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet --no-install-recommends $missing \
        >/dev/null || echo "peers: could not be installed: $missing"
fi
.peers/lib/python3*/site-packages/pytriton/tritonserver/bin/tritonserver --help 2>&1 | grep -q Usage ||
    echo "peers: Triton's server doesn't run here"
.peers/bin/python -m pip list --disable-pip-version-check 2>/dev/null | grep -E '^(mosec|nvidia-pytriton|torch) '
