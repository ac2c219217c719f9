#!/usr/bin/env bash
# Runs a command beside throw-away object stores that speak the protocols of S3 (Moto) and Azure Blob Storage (Azurite): ESTIMATORD_TEST_S3
# and ESTIMATORD_TEST_AZ are their addresses. Needs Python 3 with venv, npm and curl; what else is missing goes into a cache of its own.
# The emulators of Google Cloud Storage that could be had do not speak the protocol that the client speaks.
set -euo pipefail
for program in python3 npm curl; do
    command -v "$program" >/dev/null || { echo "with-stores: please install $program" >&2; exit 1; }
done
cache=${ESTIMATORD_STORES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/estimatord-store-tests}
mkdir -p "$cache"
if [ ! -x "$cache/venv/bin/moto_server" ]; then
    python3 -m venv "$cache/venv"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check 'moto[server]==5.*' 'azure-storage-blob==12.*'
fi
[ -x "$cache/node_modules/.bin/azurite-blob" ] || npm install --silent --prefix "$cache" azurite@3

dir=$(mktemp -d)
stores=()
trap 'kill "${stores[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
s3=$(port) az=$(port)
"$cache/venv/bin/moto_server" -H 127.0.0.1 -p "$s3" >"$dir/s3.log" 2>&1 & stores+=($!)
"$cache/node_modules/.bin/azurite-blob" --silent --skipApiVersionCheck --disableTelemetry --location "$dir/az" --blobHost 127.0.0.1 \
    --blobPort "$az" >"$dir/az.log" 2>&1 & stores+=($!)
for port in "$s3" "$az"; do
    for _ in $(seq 150); do
        # Any answer will do.
        curl -s -o /dev/null "http://127.0.0.1:$port/" && continue 2
        sleep 0.2
    done
    echo "with-stores: no store answers on port $port" >&2
    cat "$dir"/*.log >&2
    exit 1
done
curl -sf -o /dev/null -X PUT "http://127.0.0.1:$s3/bucket"
# The account and key that Azurite is documented to have.
export ESTIMATORD_TEST_AZ_ACCOUNT=devstoreaccount1
export ESTIMATORD_TEST_AZ_KEY=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==
"$cache/venv/bin/python" - "http://127.0.0.1:$az" <<'PYTHON'
import os, sys
from azure.storage.blob import BlobServiceClient
account = os.environ["ESTIMATORD_TEST_AZ_ACCOUNT"]
BlobServiceClient(f"{sys.argv[1]}/{account}", credential=os.environ["ESTIMATORD_TEST_AZ_KEY"]).create_container("bucket")
PYTHON
export ESTIMATORD_TEST_S3=http://127.0.0.1:$s3 ESTIMATORD_TEST_AZ=http://127.0.0.1:$az
"$@"
