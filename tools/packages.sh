#!/bin/sh
# Installs what `make test-deploy` needs from Debian: the real tools that the files in deploy/ are tried with. Where it
# may not, it says so and ends well, and the tests skip and name what is missing.
#
# Docker Compose comes from a later Debian than the oldest that is supported, unpacked in .tools/ beside the project.
set -eu
cd "$(dirname "$0")/.."
PACKAGES="prometheus podman runc slirp4netns mmdebstrap chromium"

as_root=
if [ "$(id -u)" != 0 ]; then
    as_root="sudo -n"
    $as_root true 2>/dev/null || { echo "packages: neither root nor sudo, nothing is installed"; exit 0; }
fi
command -v apt-get >/dev/null || { echo "packages: no apt-get, nothing is installed"; exit 0; }

missing=
for package in $PACKAGES; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q '^install ok' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    # A package's service, such as Prometheus on port 9090, is not started.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
        $as_root chmod +x $policy
        trap '$as_root rm -f $policy' EXIT
    fi
    echo "packages: installing$missing"
    $as_root apt-get update --quiet --quiet || true
    # shellcheck disable=SC2086  # words of a list
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet --no-install-recommends $missing \
        >/dev/null || { echo "packages: could not be installed:$missing"; exit 0; }
fi

tools=$PWD/.tools
[ -x "$tools/docker-compose" ] && exit 0
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$tools/apt/lists/partial" "$tools/apt/cache/archives/partial"
echo "deb [signed-by=$keyring] http://deb.debian.org/debian trixie main" >"$tools/apt/sources.list"
cat >"$tools/apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$tools/apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$tools/apt/lists";
Dir::Cache "$tools/apt/cache";
APT::Sandbox::User "root";
CONF
export APT_CONFIG="$tools/apt/apt.conf"
(
    cd "$tools"
    apt-get update --quiet --quiet
    apt-get download --quiet --quiet docker-compose
    dpkg-deb --extract docker-compose_*.deb unpacked
    ln -s unpacked/usr/libexec/docker/cli-plugins/docker-compose docker-compose
) || echo "packages: Docker Compose could not be had"
