#!/usr/bin/env bash
# Provide the full test server: PostgreSQL with plpython3u and pgvector, from the distribution's packages; PgBouncer; and
# libfaketime, a clock that tests may set.
#
#   full_server.sh          install what is missing (root or passwordless sudo); do nothing when it is there
#   full_server.sh --find   install nothing; print the server's bin directory, exit 1 when there is none
#
# Without --find nothing is installed either when MEMORY_PLUGIN_TEST_DATABASE_URL names a server or a Docker
# engine answers: the tests take those first. PgBouncer and libfaketime are installed all the same; a machine that cannot
# have them goes on, and pytest says what was not run. Exit status: 0 ready, 1 not there, 3 cannot be provided here.
# The last line of standard output is the bin directory; everything said to people goes to standard error.
set -euo pipefail

say() { printf 'full_server: %s\n' "$*" >&2; }
cannot() { say "cannot provide the full server: $*"; exit 3; }

find_server() {
    local bin lib share
    for bin in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV); do
        [ -x "$bin/pg_ctl" ] || continue
        lib="$(dirname "$bin")/lib"
        share="/usr/share/postgresql/$(basename "$(dirname "$bin")")"
        if [ -e "$lib/vector.so" ] && [ -e "$lib/plpython3.so" ] \
            && [ -e "$share/extension/vector.control" ] && [ -e "$share/extension/plpython3u.control" ]; then
            echo "$bin"
            return 0
        fi
    done
    return 1
}

have_candidate() {
    local candidate
    candidate="$(apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p')"
    [ -n "$candidate" ] && [ "$candidate" != '(none)' ]
}

apt_install() {
    # What the machine already has stays at its version.
    local options=(-y -q --no-install-recommends --no-upgrade -o DPkg::Lock::Timeout=300)
    # Lists can be older than the mirror; then the first try ends in 404 and the second does not.
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "$@" >&2; then
        refresh_lists
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "$@" >&2
    fi
}

refresh_lists() {
    # A third-party source that does not answer is not our business; a package that is missing then says so itself.
    "${as_root[@]}" apt-get update -q >&2 || say "some package lists could not be refreshed; going on"
}

# Debian 12 does not package pgvector, Debian 13 does, and its source package builds against older servers.
# A private apt configuration fetches that source, so the machine's own sources stay as they are.
build_pgvector() {
    local pg_config="$1" codename="$2" mirror keyring apt_options
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$keyring" ] || apt_install debian-archive-keyring
    # shellcheck disable=SC2016
    mirror="$(apt-get indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Label: Debian' "Codename: $codename" | sort -u | head -n 1)"
    [ -n "$mirror" ] || cannot "no Debian mirror in this machine's apt sources"

    scratch="$(mktemp -d)"
    mkdir -p "$scratch"/{lists,archives}/partial "$scratch/source"
    echo "deb-src [signed-by=$keyring] $mirror trixie main" > "$scratch/sources.list"
    apt_options=(
        -q
        -o "Dir::Etc::sourcelist=$scratch/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$scratch/lists" -o "Dir::Cache=$scratch" -o "Dir::Cache::archives=$scratch/archives"
        -o "APT::Sandbox::User=$(id -un)" -o Acquire::Languages=none
    )
    say "building pgvector from Debian 13's source package"
    apt-get "${apt_options[@]}" update >&2
    (cd "$scratch/source" && apt-get "${apt_options[@]}" source pgvector >&2)
    # No -march=native (a cached machine image may move to another processor) and no LLVM bitcode (tests need none).
    make -s -C "$scratch"/source/pgvector-*/ -j "$(nproc)" OPTFLAGS= with_llvm=no PG_CONFIG="$pg_config" >&2
    "${as_root[@]}" make -s -C "$scratch"/source/pgvector-*/ install OPTFLAGS= with_llvm=no PG_CONFIG="$pg_config" >&2
}

provide_pooler() {
    ! PATH="$PATH:/usr/sbin" command -v pgbouncer >/dev/null || return 0
    if [ "${#as_root[@]}" -eq 0 ] || ! command -v apt-get >/dev/null; then
        say "cannot provide PgBouncer: that takes apt-get, as root or with passwordless sudo"
        return 0
    fi
    say "installing PgBouncer"
    # The tests start their own: let the package not start a service on port 6432.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
    fi
    apt_install pgbouncer || say "PgBouncer could not be installed; going on"
    drop_policy
}

provide_clock() {
    ! compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || return 0
    if [ "${#as_root[@]}" -eq 0 ] || ! command -v apt-get >/dev/null; then
        say "cannot provide libfaketime: that takes apt-get, as root or with passwordless sudo"
        return 0
    fi
    say "installing libfaketime"
    apt_install faketime || say "libfaketime could not be installed; going on"
}

drop_policy() {
    [ -z "$policy" ] || "${as_root[@]}" rm -f "$policy"
    policy=''
}

scratch=''
held_back=''
policy=''
clean_up() {
    drop_policy
    [ -z "$scratch" ] || rm -rf "$scratch"
    [ -z "$held_back" ] || "${as_root[@]}" rm -f "$held_back"
}
trap clean_up EXIT

if [ "${1:-}" = --find ]; then
    find_server
    exit
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=(env)
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    as_root=()
fi
provide_pooler
provide_clock
if [ -n "${MEMORY_PLUGIN_TEST_DATABASE_URL:-}" ]; then
    say "MEMORY_PLUGIN_TEST_DATABASE_URL names the full server; nothing to install"
    exit 0
fi
if find_server; then
    exit 0
fi
if command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1; then
    say "a Docker engine answers; the tests build docker/Dockerfile"
    exit 0
fi

[ "${#as_root[@]}" -gt 0 ] || cannot "neither root nor passwordless sudo, and no Docker engine answers"
command -v apt-get >/dev/null || cannot "this is neither Debian nor Ubuntu"
# shellcheck source=/dev/null
. /etc/os-release

have_candidate postgresql || refresh_lists
have_candidate postgresql || cannot "apt knows no package postgresql"
major="$(apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | head -n 1)"
[ -n "$major" ] || cannot "apt does not say which PostgreSQL this distribution carries"

if [ ! -x "/usr/lib/postgresql/$major/bin/postgres" ]; then
    # The tests make their own clusters: let the package neither create nor start one on port 5432.
    held_back=/etc/postgresql-common/createcluster.d/memory-plugin-tests.conf
    "${as_root[@]}" mkdir -p "$(dirname "$held_back")"
    echo 'create_main_cluster = false' | "${as_root[@]}" tee "$held_back" >/dev/null
fi
say "installing PostgreSQL $major with plpython3u and pgvector"
if have_candidate "postgresql-$major-pgvector"; then
    apt_install "postgresql-$major" "postgresql-plpython3-$major" "postgresql-$major-pgvector"
elif [ "${ID:-}" = debian ]; then
    apt_install "postgresql-$major" "postgresql-plpython3-$major" "postgresql-server-dev-$major" \
        build-essential dpkg-dev
    build_pgvector "/usr/lib/postgresql/$major/bin/pg_config" "$VERSION_CODENAME"
else
    cannot "this distribution has no package postgresql-$major-pgvector"
fi
find_server || cannot "the packages are installed, yet plpython3u or pgvector is missing"
