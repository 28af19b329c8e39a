# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016
# Bad input: one clear sentence with the cause, exit status 1 (2: usage), and
# nothing changed: the guest runs on with nothing of ours attached.
. "$(dirname "$0")/../lib/scenario.sh"
start_from running
refused() { # STATUS TEXT COMMAND...
    local want=$1 text=$2 out rc=0
    shift 2
    out=$(alder "$@" 2>&1) || rc=$?
    say "\$ $*" && say "$out"
    [ $rc = "$want" ] || fail "exit status $rc, not $want"
    grep -q -- "$text" <<<"$out" || fail "does not say '$text'"
}
refused 1 'no domain' understudy protect nobody birch --arbiter none
refused 2 'arbiter' understudy protect web birch
refused 1 'peer' understudy protect web cedar --arbiter none
alder 'sed "s/pvh/pv/; s/web/pvweb/; s/.11/.13/g" /srv/guest/web.cfg >/srv/pv.cfg; xl create -q /srv/pv.cfg' ||
    fail "xl create pv"
refused 1 'PV' understudy protect pvweb birch --arbiter none
alder xl destroy pvweb
# A bridge that birch lacks.
alder 'ip link add xenbr9 type bridge; ip link set xenbr9 up
    sed "s/\"web\"/\"odd\"/; s/xenbr0/xenbr9/; s/:11\"/:19\"/" /srv/guest/web.cfg >/srv/odd.cfg
    sed -i "s/mac=00:16:3e:05:00:11/mac=00:16:3e:05:00:19/" /srv/odd.cfg; xl create -q /srv/odd.cfg' ||
    fail "xl create odd"
refused 1 'xenbr9' understudy protect odd birch --arbiter none
alder xl destroy odd
# A name that birch has.
birch 'sed "s/.11/.14/g" /srv/guest/web.cfg >/srv/same.cfg; xl create -q /srv/same.cfg' ||
    fail "xl create on birch"
refused 1 'name' understudy protect web birch --arbiter none
birch xl destroy web
await 6 alder_is_clean || fail "something was left on alder"
guest_answers "$WEB" || fail "web does not answer"
birch xl list | grep -q replica && fail "a shell was left on birch"
protect alder web birch
refused 1 'already' understudy protect web birch --arbiter none
