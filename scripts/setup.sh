#!/usr/bin/env bash
# Makes sure that what is needed is there: installs it where that is allowed, else asks for it in one line.
#   setup.sh [build] [run] [test] [contract] [bench]
set -euo pipefail

have() { command -v "$1" >/dev/null 2>&1; }
postgres_bin() {
    [ -n "${PG_BIN_DIR:-}" ] && [ -x "$PG_BIN_DIR/initdb" ] && return 0
    have initdb && have postgres && return 0
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return 0
    compgen -G '/opt/homebrew/opt/postgresql*/bin/initdb' >/dev/null && return 0
    [ -x /usr/local/pgsql/bin/initdb ]
}

missing=()
for purpose in "$@"; do
    case "$purpose" in
    build)
        have cargo || { echo "setup: Rust is missing: install it with rustup (https://rustup.rs), then try again" >&2; exit 1; }
        # A linker, and a C compiler for the TLS library.
        have cc || missing+=(gcc libc6-dev)
        # What the allocator is built with.
        have make || missing+=(make)
        ;;
    run)
        have python3 || missing+=(python3)
        # pip brings uv when there is none; uv builds the environments that runs ask for.
        { have uv || python3 -m pip --version >/dev/null 2>&1; } || missing+=(python3-pip)
        postgres_bin || missing+=(postgresql)
        ;;
    test)
        have psql || missing+=(postgresql-client)
        have setpriv || missing+=(util-linux)
        ;;
    contract)
        # A service is asked by programs in two more languages, and by a browser.
        { have node && have npm; } || missing+=(nodejs npm)
        python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
        have chromium || missing+=(chromium)
        ;;
    bench)
        # The job queues beside which the drain is measured; pgbench comes with the server.
        { have node && have npm; } || missing+=(nodejs npm)
        ;;
    *) echo "setup: unknown purpose: $purpose" >&2; exit 2 ;;
    esac
done
[ ${#missing[@]} -eq 0 ] && exit 0

command="apt-get install -y ${missing[*]}"
if ! have apt-get; then
    echo "setup: please install, by your system's packages: ${missing[*]}" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if have sudo && sudo -n true 2>/dev/null; then
        as_root=(sudo)
    else
        echo "setup: please run as root, then try again: $command" >&2
        exit 1
    fi
fi
echo "setup: installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
# The packaged cluster is not used, so none is made; the service and the tests run their own.
if [[ " ${missing[*]} " == *" postgresql "* ]]; then
    "${as_root[@]}" mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo 'create_main_cluster = false' | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
