#!/usr/bin/env bash
# Runs a command with DATABASE_URL set to a throw-away PostgreSQL: its own cluster, its own socket, gone afterwards.
# TEST_DATABASE_URL names a server to use instead.
set -euo pipefail
if [ -n "${TEST_DATABASE_URL:-}" ]; then
    DATABASE_URL="$TEST_DATABASE_URL" exec "$@"
fi

bin=${PG_BIN_DIR:-}
if [ -z "$bin" ]; then
    for candidate in $(compgen -G '/usr/lib/postgresql/*/bin' | sort -rV) "$(dirname "$(command -v initdb || echo /none/x)")" \
        $(compgen -G '/opt/homebrew/opt/postgresql*/bin') /usr/local/pgsql/bin; do
        if [ -x "$candidate/initdb" ] && [ -x "$candidate/postgres" ]; then bin=$candidate; break; fi
    done
fi
[ -n "$bin" ] || { echo "with-postgres: no PostgreSQL binaries: apt-get install -y postgresql" >&2; exit 1; }

dir=$(mktemp -d "${TMPDIR:-/tmp}/estimatord-test-pg.XXXXXX")
drop=()
if [ "$(id -u)" -eq 0 ]; then
    # PostgreSQL refuses to run as root.
    account=postgres
    id -u $account >/dev/null 2>&1 || account=nobody
    chown "$account" "$dir"
    drop=(setpriv "--reuid=$(id -u $account)" "--regid=$(id -g $account)" --clear-groups)
fi
chmod 700 "$dir"
server=
finish() {
    if [ -n "$server" ]; then
        kill -INT "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$dir"
}
trap finish EXIT
cd /
"${drop[@]}" "$bin/initdb" -D "$dir/data" -A trust -U postgres --locale=C -E UTF8 --no-sync >/dev/null
# Durability is of no use to data that is thrown away.
"${drop[@]}" "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off -c max_connections=300 \
    >"$dir/log" 2>&1 &
server=$!
for _ in $(seq 1 300); do
    [ "$(sed -n 8p "$dir/data/postmaster.pid" 2>/dev/null | tr -d ' ')" = ready ] && break
    kill -0 "$server" 2>/dev/null || { cat "$dir/log" >&2; exit 1; }
    sleep 0.1
done
cd "$OLDPWD"
# Not exec: the server is stopped when the command has ended.
DATABASE_URL="postgres://postgres@localhost/postgres?host=$dir" "$@"
