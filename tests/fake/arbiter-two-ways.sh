# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Two VMs, each host the other's backup, one witness. The link is cut: each VM
# stays where it is, with a generation of its own. A host dies: its VM is taken
# over, the other one runs on.
# moments: link host
. "$(dirname "$0")/../lib/arbiter.sh"
: "${MOMENT:=host}"
three_make
guest_make alder web
guest_make birch db
protect_with_arbiter alder web birch
protect_with_arbiter birch db alder
[ "$(witness list --json | jq length)" = 2 ] || fail "the witness has $(witness list)"
holders() { witness list --json | jq -r '.[].holder' | sort | paste -sd,; }
web=$(steps_committed alder web) || fail "no epochs of web"
steps_committed birch db >/dev/null || fail "no epochs of db"
case $MOMENT in
link)
    cable_cut link
    await 5 state_is alder web Degraded || fail "web is $(us alder status web)"
    await 5 state_is birch db Degraded || fail "db is $(us birch status db)"
    [ "$(holders)" = alder,birch ] || fail "the witness has $(witness list)"
    await 5 guest_goes_on alder web || fail "web does not go on"
    await 5 guest_goes_on birch db || fail "db does not go on"
    cable_heal link
    await 20 state_is alder web Protected || fail "web is $(us alder status web)"
    await 20 state_is birch db Protected || fail "db is $(us birch status db)"
    ;;
host)
    host_die alder
    taken_over_well birch web "$web"
    await 5 state_is birch db Degraded || fail "db is not Degraded"
    await 5 guest_goes_on birch db || fail "db does not go on"
    guest birch check db || fail "db is broken"
    [ "$(holders)" = birch,birch ] || fail "the witness has $(witness list)"
    ;;
esac
