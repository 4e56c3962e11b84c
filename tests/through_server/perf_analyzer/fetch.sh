#!/bin/sh
# Puts perf_analyzer into a directory, with a C library beside it that is new enough for it (glibc 2.38), whatever the
# system has: the system stays as it is. Needs pip, and apt-get with Debian's keyring.
#
#     tests/through_server/perf_analyzer/fetch.sh ~/perf_analyzer
#     LAYERWIRE_PERF_ANALYZER=~/perf_analyzer/perf_analyzer make test ARGS=tests/through_server/perf_analyzer
set -eu
[ $# -eq 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 2; }
mkdir -p "$1"
cd "$1"
top=$PWD

python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --platform manylinux_2_38_x86_64 'perf-analyzer==2.*' --dest wheel
python3 -m zipfile -e wheel/perf_analyzer-*.whl tool
chmod +x tool/perf_analyzer/bin/perf_analyzer

mkdir -p apt/lists/partial apt/cache/archives/partial debs
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] http://deb.debian.org/debian trixie main" >apt/sources.list
cat >apt/apt.conf <<CONF
Dir::Etc::sourcelist "$top/apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$top/apt/lists";
Dir::Cache "$top/apt/cache";
CONF
export APT_CONFIG="$top/apt/apt.conf"
apt-get update --quiet --quiet
(cd debs && apt-get download --quiet --quiet libc6 libstdc++6 libgcc-s1 libssl3t64 zlib1g libzstd1)
for package in debs/*.deb; do
    dpkg-deb --extract "$package" system
done

libraries="$top/system/usr/lib/x86_64-linux-gnu"
cat >perf_analyzer <<RUN
#!/bin/sh
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$top/tool/perf_analyzer/bin/perf_analyzer" "\$@"
RUN
chmod +x perf_analyzer
./perf_analyzer --version
