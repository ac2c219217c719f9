#!/usr/bin/env bash
# Writes .sqlx, the answers of a real PostgreSQL to every checked query, so that a build needs no database.
# With --check it only tells whether .sqlx is up to date. Needs DATABASE_URL: a server on which a database may be made.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${DATABASE_URL:?a PostgreSQL on which a scratch database may be made, e.g. postgres://postgres@127.0.0.1/postgres}"
scratch="estimatord_prepare_$$"
psql -qX "$DATABASE_URL" -c "CREATE DATABASE $scratch"
out=$(mktemp -d)
trap 'psql -qX "$DATABASE_URL" -c "DROP DATABASE IF EXISTS $scratch"; rm -rf "$out"' EXIT
base=${DATABASE_URL%%\?*}
scratch_url="${base%/*}/$scratch"
[ "$base" = "$DATABASE_URL" ] || scratch_url="$scratch_url?${DATABASE_URL#*\?}"
for migration in migrations/*.sql; do
    psql -qX -v ON_ERROR_STOP=1 "$scratch_url" -f "$migration"
done
# The macros write while the crate is compiled, so it must be compiled.
touch src/lib.rs
DATABASE_URL="$scratch_url" SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$out" cargo check --quiet --lib
if [ "${1:-}" = "--check" ]; then
    diff -rq "$out" .sqlx || { echo "sqlx-prepare: .sqlx is out of date: run scripts/sqlx-prepare.sh" >&2; exit 1; }
    echo "sqlx-prepare: .sqlx is up to date"
else
    rm -rf .sqlx && mkdir .sqlx && cp "$out"/* .sqlx/
    touch src/lib.rs
    echo "sqlx-prepare: wrote $(find .sqlx -name '*.json' | wc -l) queries"
fi
