#!/usr/bin/env bash
# Holds the HTTP contract against a running service, from outside: `scripts/check-contract.sh [check…]`, all when none is named.
#
#   document       openapi/openapi.json is valid OpenAPI, and what the service answers
#   style          Spectral finds nothing to mend in it
#   compatibility  says whether it breaks clients of the version before (with STRICT=1 that is a failure)
#   python         a generated Python client uploads, submits, follows and reads
#   typescript     the same with generated types, under a strict compiler
#   browser        the same by hand in Swagger UI, with screenshots in target/contract/screenshots
#   webhook        a receiver gets every message of a run, and the specification's own library believes each
#   fuzz           Schemathesis makes requests up
#
# The service is $ESTIMATORD, else the build in target/. It gets a database, a port and a token of its own, and nothing of it
# stays. What the checks need is installed into target/contract and tests/contract/node_modules, and kept for the next time.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

all=(document style compatibility python typescript browser webhook fuzz)
[ $# -gt 0 ] || set -- "${all[@]}"
for check in "$@"; do
    [[ " ${all[*]} " == *" $check "* ]] || { echo "check-contract: no check $check; there are: ${all[*]}" >&2; exit 2; }
done

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
binary=${ESTIMATORD:-}
for built in "$target/debug/estimatord" "$target/release/estimatord"; do
    [ -n "$binary" ] || [ ! -x "$built" ] || binary=$built
done
[ -x "$binary" ] || { echo "check-contract: no service: build it, or name it in ESTIMATORD" >&2; exit 1; }
scripts/setup.sh run contract

# Debian 12 has an older one.
node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)' ||
    { echo "check-contract: node $(node --version) is too old: 20 or newer is needed" >&2; exit 1; }

kept=$target/contract
python=$kept/python/bin/python
npx=tests/contract/node_modules/.bin
mkdir -p "$kept"
install_python() {
    rm -rf "$kept/python"
    python3 -m venv "$kept/python"
    "$python" -m pip install --quiet --disable-pip-version-check -r tests/contract/requirements.txt
}
install_npm() {
    (cd tests/contract && npm ci --ignore-scripts --no-progress --loglevel=error)
}
# `once <installer> <directory that it makes> <what it reads>`: anew when what it reads is not what it read the last time.
once() {
    local stamp=$2/.installed-from wanted
    wanted=$(sha256sum "$3")
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        "$1"
        printf '%s\n' "$wanted" >"$stamp"
    fi
}
once install_python "$kept/python" tests/contract/requirements.txt
once install_npm tests/contract/node_modules tests/contract/package-lock.json

# Not below the home directory: as root the database runs under another account, which must get there.
work=$(mktemp -d)
chmod 755 "$work"
service=
ready=
# Everything ends: a run outlives its service by design, so those that the checks left are cancelled before it is stopped.
leave() {
    local outcome=$?
    trap - EXIT
    if [ -n "$service" ]; then
        if kill -0 "$service" 2>/dev/null && [ -n "$ready" ]; then
            python3 tests/contract/end_runs.py || outcome=1
        fi
        kill "$service" 2>/dev/null || true
        wait "$service" || { echo "check-contract: the service ended with $?" >&2; outcome=1; }
        [ "$outcome" -eq 0 ] || echo "check-contract: the service's log: $kept/service.log" >&2
    fi
    rm -rf "$work"
    exit "$outcome"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Nothing of the caller's own service gets in.
for name in "${!ESTIMATORD_@}" DATABASE_URL; do unset "$name"; done
ESTIMATORD_TOKEN=$(python3 -c 'import secrets; print(secrets.token_urlsafe(24))')
(umask 077 && printf '%s\n' "$ESTIMATORD_TOKEN" >"$work/token")
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free_port)
CONTRACT_RECEIVER_PORT=$(free_port)
export CONTRACT_RECEIVER_PORT
# In a session of its own, so that an interrupt from the terminal leaves it there to have its runs cancelled.
setsid "$binary" serve --listen "127.0.0.1:$port" --data-dir "$work/data" --api-token-file "$work/token" --datastore-allow /srv/datasets \
    --max-concurrent-runs 2 --cancel-grace-seconds 1 --webhook-allow "hooks.example.com,http://127.0.0.1:$CONTRACT_RECEIVER_PORT" >"$kept/service.log" 2>&1 </dev/null &
service=$!
export ESTIMATORD_URL=http://127.0.0.1:$port ESTIMATORD_TOKEN
deadline=$((SECONDS + 60))
until "$binary" healthcheck --retry-for 0 >/dev/null 2>&1; do
    kill -0 "$service" 2>/dev/null || { echo "check-contract: the service did not start" >&2; exit 1; }
    [ "$SECONDS" -lt "$deadline" ] || { echo "check-contract: the service did not become ready" >&2; exit 1; }
    sleep 0.1
done
ready=1

# The example as the document describes it: its script, packed alone.
export CONTRACT_ARCHIVE=$work/digits.tar.gz
tar -C examples/digits -czf "$CONTRACT_ARCHIVE" train.py

check_document() {
    "$python" -m openapi_spec_validator openapi/openapi.json
    "$python" tests/contract/served_document.py openapi/openapi.json
}

check_style() {
    "$npx/spectral" lint --fail-severity=warn openapi/openapi.json
}

check_compatibility() {
    node --test tests/contract/compatibility.test.mjs >"$work/compatibility" || { cat "$work/compatibility"; return 1; }
    node tests/contract/compatibility.mjs ${STRICT:+--strict}
}

check_python() {
    "$python" -m openapi_python_client generate --path openapi/openapi.json --config tests/contract/python-client.yaml \
        --meta none --output-path "$work/python/estimatord_client" >"$work/generator" 2>&1 || { cat "$work/generator"; return 1; }
    PYTHONPATH=$work/python "$python" tests/contract/client.py
}

check_typescript() {
    # Beside the client, because that is where the compiler and node look for packages. Members that have a default may be left
    # out of a definition that is sent; the generator takes them for members that are always there, as in an answer.
    local generated=tests/contract/generated
    rm -rf "$generated"
    "$npx/openapi-typescript" openapi/openapi.json --default-non-nullable false --output "$generated/schema.d.ts" \
        >"$work/generator" 2>&1 ||
        { cat "$work/generator"; return 1; }
    "$npx/tsc" --project tests/contract
    node "$generated/client.js"
}

check_browser() {
    CONTRACT_SCREENSHOTS=$kept/screenshots CONTRACT_PROFILE=$work/profile node tests/contract/browser.mjs
}

check_webhook() {
    "$python" tests/contract/webhook.py
}

check_fuzz() {
    "$python" tests/contract/fuzz.py
}

failed=()
for check in "$@"; do
    echo "=== $check"
    SECONDS=0
    # Not as the condition of an `if`, where a command that fails would not end the check.
    set +e
    (set -e && "check_$check")
    outcome=$?
    set -e
    if [ "$outcome" -eq 0 ]; then echo "=== $check holds, $SECONDS s"; else failed+=("$check"); echo "=== $check FAILED, $SECONDS s"; fi
done
if grep -qFf "$work/token" "$kept/service.log"; then
    echo "=== the service wrote the token into its log"
    failed+=(log)
fi
[ ${#failed[@]} -eq 0 ] || { echo "check-contract: failed: ${failed[*]}" >&2; exit 1; }
echo "check-contract: all of it holds: $*"
