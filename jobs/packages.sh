# SPDX-License-Identifier: Apache-2.0
# packages.sh - which Debian packages blockq needs, and a way to get them.  Sourced by jobs/demo.sh and tests/run.sh.
# shellcheck shell=bash

# To build and run.
# shellcheck disable=SC2034 # used by those who source this
bq_packages=(build-essential cmake pkg-config libopenmpi-dev openmpi-bin libhdf5-dev libopenblas-serial-dev
    libjansson-dev libxxhash-dev)

# To build and run the tests.
# shellcheck disable=SC2034
bq_test_packages=(libcmocka-dev procps)

# For tests that are skipped without them: fuzzers, tools in Python, house checks, instruction counts, Slurm, MPI-IO
# (beside the serial HDF5, which CMake takes unless BQ_PHDF5 is on).  ccache saves the tests' builds from doing the same twice.
# shellcheck disable=SC2034
bq_extra_packages=(ccache clang-14 libclang-rt-14-dev clang-format-14 shellcheck python3 python3-numpy
    python3-h5py python3-matplotlib slurmctld slurmd slurm-client munge valgrind libhdf5-openmpi-dev)

# Those of the named packages that are not installed, one a line.
bq_packages_missing() {
    local name
    for name; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || echo "$name"
    done
}

# Run as root: as it is, by sudo, or not at all.
bq_as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        return 126
    fi
}

# Install what is missing of the named packages.  Nothing missing: no network, no root.  A failure says what to do.
bq_packages_install() {
    local missing
    if ! command -v dpkg-query >/dev/null; then
        echo "no Debian here: the counterparts of these packages must be installed: $*" >&2
        return 0
    fi
    mapfile -t missing < <(bq_packages_missing "$@")
    ((${#missing[@]})) || return 0
    echo "installing ${missing[*]}"
    if bq_as_root apt-get update -q >/dev/null &&
        bq_as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" \
            </dev/null >/dev/null; then
        return 0
    fi
    echo "not installed.  As root: apt-get install --no-install-recommends ${missing[*]}" >&2
    return 1
}
