#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what building and testing needs (Debian 12), or says what to type
# when it may not. Headers and libraries of Xen only: the hypervisor's package
# would make this machine boot Xen.
set -eu

packages='build-essential clang-format cppcheck universal-ctags shellcheck
libxen-dev libev-dev libnl-3-dev libnl-route-3-dev libnl-genl-3-dev
libzstd-dev libssl-dev libjansson-dev libcmocka-dev libxxhash-dev
libcurl4-openssl-dev etcd-server curl openssl jq pkg-config perl spin git'

if ! command -v dpkg-query >/dev/null; then
    echo "deps: this is not a Debian system; the packages' names there are:" \
        $packages >&2
    exit 1
fi

installed() { # PACKAGE
    dpkg-query -W -f '${db:Status-Abbrev}\n' "$1" 2>/dev/null | grep -q '^ii'
}

missing=
for package in $packages; do
    installed "$package" || missing="$missing $package"
done
if [ -z "$missing" ]; then
    echo 'deps: all there'
    exit 0
fi
echo "deps: missing:$missing"
if [ "$(id -u)" -ne 0 ]; then
    echo 'deps: not root; type:' >&2
    echo "  sudo apt-get update && sudo apt-get install$missing" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
# shellcheck disable=SC2086 # a list of words
apt-get -q -y install --no-install-recommends $missing
# Debian starts a server when it installs one; tests run their own.
case $missing in
*etcd-server*)
    systemctl disable --now etcd >/dev/null 2>&1 ||
        service etcd stop >/dev/null 2>&1 || true
    ;;
esac
for package in $missing; do
    installed "$package" || {
        echo "deps: $package could not be installed" >&2
        exit 1
    }
done
echo 'deps: all there'
