# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# unprotect leaves the guest running and nothing of ours on either host.
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
client_start "$WEB"
alder understudy unprotect web || fail "unprotect"
await 6 alder_is_clean || fail "something is left on alder"
birch xl list | grep -q replica && fail "the shell is left on birch"
client_goes_on 60 10 || fail "the guest does not go on"
client_end || fail "an answer or the connection was lost"
protect alder web birch
