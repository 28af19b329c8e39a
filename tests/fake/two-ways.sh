# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Two VMs, each host the other's backup. One host dies: its VM is taken over,
# the other one runs on where it is.
. "$(dirname "$0")/../lib/fake.sh"
hosts_make
guest_make alder web
guest_make birch db
protect alder web birch
protect birch db alder
web=$(steps_committed alder web) || fail "no epochs of web"
steps_committed birch db >/dev/null || fail "no epochs of db"
host_die alder
taken_over_well birch web "$web"
await 5 state_is birch db Degraded || fail "db is not Degraded"
await 5 guest_goes_on birch db || fail "db does not go on"
guest birch check db || fail "db is broken"
