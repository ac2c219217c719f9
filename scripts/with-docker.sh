#!/usr/bin/env bash
# Runs a command with DOCKER_HOST set to a throw-away Docker: its own daemon, its own images, gone afterwards. There is an image with a
# Python in it (ESTIMATORD_TEST_IMAGE), and a registry that asks for a password (ESTIMATORD_TEST_REGISTRY, _USER, _PASSWORD).
# Needs root, and installs what is missing with apt-get.
set -euo pipefail
have() { command -v "$1" >/dev/null 2>&1; }
[ "$(id -u)" -eq 0 ] || { echo "with-docker: only root can start a Docker daemon" >&2; exit 1; }

missing=()
have dockerd || missing+=(docker.io)
have debootstrap || missing+=(debootstrap)
have docker-registry || missing+=(docker-registry)
have htpasswd || missing+=(apache2-utils)
if [ ${#missing[@]} -gt 0 ]; then
    have apt-get || { echo "with-docker: please install: ${missing[*]}" >&2; exit 1; }
    apt-get update -qq
    # None of the packaged services is wanted.
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d.estimatord && chmod +x /usr/sbin/policy-rc.d.estimatord
    [ -e /usr/sbin/policy-rc.d ] || { cp /usr/sbin/policy-rc.d.estimatord /usr/sbin/policy-rc.d; added_policy=1; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    rm -f /usr/sbin/policy-rc.d.estimatord
    [ -z "${added_policy:-}" ] || rm -f /usr/sbin/policy-rc.d
fi

cache=${ESTIMATORD_CONTAINER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/estimatord-container-tests}
rootfs=$cache/bookworm-python.tar
if [ ! -s "$rootfs" ]; then
    mkdir -p "$cache"
    tree=$(mktemp -d "$cache/tree.XXXXXX")
    # The machine's own source of Debian packages.
    mirror=$(grep -rhE '^(deb |URIs:)' /etc/apt/sources.list /etc/apt/sources.list.d/ 2>/dev/null | grep -v security |
        grep -oE '[a-z]+://[^ ]+/debian/?( |$)' | head -1 | tr -d ' ') || true
    debootstrap --variant=minbase --include=python3,python3-venv bookworm "$tree" ${mirror:+"$mirror"} >"$cache/debootstrap.log" 2>&1 ||
        { tail -5 "$cache/debootstrap.log" >&2; exit 1; }
    tar -C "$tree" -cf "$rootfs.partial" . && mv "$rootfs.partial" "$rootfs"
    rm -rf "$tree"
fi

dir=$(mktemp -d /tmp/estd-docker.XXXXXX)
daemon= registry=
finish() {
    [ -z "$registry" ] || kill "$registry" 2>/dev/null || true
    if [ -n "$daemon" ]; then
        docker ps -aq 2>/dev/null | xargs -r docker rm -f >/dev/null 2>&1 || true
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    # The daemon leaves its network namespace mounted.
    umount "$dir/exec/netns/default" 2>/dev/null || true
    rm -rf "$dir" || true
}
trap finish EXIT
export DOCKER_HOST=unix://$dir/docker.sock
dockerd --iptables=false --bridge=none --storage-driver=vfs --data-root "$dir/data" --exec-root "$dir/exec" \
    --pidfile "$dir/pid" -H "$DOCKER_HOST" >"$dir/dockerd.log" 2>&1 &
daemon=$!
for _ in $(seq 1 300); do
    docker version >/dev/null 2>&1 && break
    kill -0 "$daemon" 2>/dev/null || { tail -20 "$dir/dockerd.log" >&2; exit 1; }
    sleep 0.1
done
export ESTIMATORD_TEST_IMAGE=estimatord-test/python:1
docker import "$rootfs" "$ESTIMATORD_TEST_IMAGE" >/dev/null

port=${ESTIMATORD_TEST_REGISTRY_PORT:-5055}
export ESTIMATORD_TEST_REGISTRY=localhost:$port ESTIMATORD_TEST_USER=puller
export ESTIMATORD_TEST_PASSWORD=canary-$$-$RANDOM
htpasswd -Bbn "$ESTIMATORD_TEST_USER" "$ESTIMATORD_TEST_PASSWORD" >"$dir/htpasswd"
cat >"$dir/registry.yml" <<YML
version: 0.1
storage: {filesystem: {rootdirectory: $dir/registry}}
http: {addr: "127.0.0.1:$port"}
auth: {htpasswd: {realm: test, path: $dir/htpasswd}}
YML
docker-registry serve "$dir/registry.yml" >"$dir/registry.log" 2>&1 &
registry=$!
for _ in $(seq 1 100); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    kill -0 "$registry" 2>/dev/null || { tail -5 "$dir/registry.log" >&2; exit 1; }
    sleep 0.1
done
mkdir "$dir/push"
printf '%s' "$ESTIMATORD_TEST_PASSWORD" |
    docker --config "$dir/push" login --username "$ESTIMATORD_TEST_USER" --password-stdin "$ESTIMATORD_TEST_REGISTRY" >/dev/null 2>&1
docker tag "$ESTIMATORD_TEST_IMAGE" "$ESTIMATORD_TEST_REGISTRY/private/python:1"
docker --config "$dir/push" push -q "$ESTIMATORD_TEST_REGISTRY/private/python:1" >/dev/null
docker rmi "$ESTIMATORD_TEST_REGISTRY/private/python:1" >/dev/null
rm -rf "$dir/push"
"$@"
