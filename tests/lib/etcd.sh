# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What tests/fake/arbiter-etcd.sh has besides tests/lib/arbiter.sh: an etcd of
# three members on loopback, Debian's own server, with TLS on both sides.
# shellcheck source=tests/lib/arbiter.sh
. "$(dirname "${BASH_SOURCE[0]}")/arbiter.sh"
declare -A MEMBER ETCD_PORT ETCD_PEER
trap 'etcd_exit' EXIT

etcd_exit() {
    local rc=$? pid
    for pid in "${MEMBER[@]}"; do kill -KILL "$pid" 2>/dev/null; done
    (exit $rc)
    arbiter_exit
}

# --- Keys ------------------------------------------------------------------------------

certificate() { # NAME: signed by the authority, for both ends
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -subj "/CN=$1" -keyout "$WORK/tls/$1.key" -out "$WORK/tls/$1.csr" 2>/dev/null &&
        openssl x509 -req -in "$WORK/tls/$1.csr" -CA "$WORK/tls/ca.pem" \
            -CAkey "$WORK/tls/ca.key" -CAcreateserial -days 2 -out "$WORK/tls/$1.pem" \
            -extfile <(echo 'subjectAltName=IP:127.0.0.1') 2>/dev/null ||
        fail "no certificate $1"
}
certificates_make() {
    local name
    mkdir "$WORK/tls"
    for name in ca stranger; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
            -days 2 -subj "/CN=$name" -keyout "$WORK/tls/$name.key" \
            -out "$WORK/tls/$name.pem" 2>/dev/null || fail "no authority"
    done
    certificate member
    certificate host
}

# --- Members ----------------------------------------------------------------------------

etcd_members() {
    local m all=
    for m in 1 2 3; do all+=",m$m=http://127.0.0.1:${ETCD_PEER[$m]}"; done
    echo "${all#,}"
}
member_start() { # NUMBER
    local url=https://127.0.0.1:${ETCD_PORT[$1]} peer=http://127.0.0.1:${ETCD_PEER[$1]}
    etcd --name "m$1" --data-dir "$WORK/etcd-$1" --listen-client-urls "$url" \
        --advertise-client-urls "$url" --listen-peer-urls "$peer" \
        --initial-advertise-peer-urls "$peer" --initial-cluster "$(etcd_members)" \
        --initial-cluster-token "$WORK" --client-cert-auth \
        --trusted-ca-file "$WORK/tls/ca.pem" --cert-file "$WORK/tls/member.pem" \
        --key-file "$WORK/tls/member.key" >>"$WORK/etcd-$1.out" 2>&1 </dev/null &
    MEMBER[$1]=$!
    disown
}
member_kill() { # NUMBER
    kill -KILL "${MEMBER[$1]}"
    unset "MEMBER[$1]"
}
# One request at the gateway of the first member that answers.
gateway() { # PATH JSON
    local m
    for m in "${!MEMBER[@]}"; do
        curl -sS -m 3 --cacert "$WORK/tls/ca.pem" --cert "$WORK/tls/host.pem" \
            --key "$WORK/tls/host.key" -d "$2" \
            "https://127.0.0.1:${ETCD_PORT[$m]}$1" 2>>"$WORK/gateway" && return
    done
    return 1
}
etcd_id() { gateway /v3/kv/range '{"key":"eA=="}' | jq -ern input.header.cluster_id; }
# The member that leads: "1", "2" or "3".
leader() {
    local m status
    for m in "${!MEMBER[@]}"; do
        status=$(curl -sS -m 3 --cacert "$WORK/tls/ca.pem" --cert "$WORK/tls/host.pem" \
            --key "$WORK/tls/host.key" -d '{}' \
            "https://127.0.0.1:${ETCD_PORT[$m]}/v3/maintenance/status" 2>/dev/null) || continue
        if [ "$(jq -r .header.member_id <<<"$status")" = "$(jq -r .leader <<<"$status")" ]; then
            echo "$m"
            return
        fi
    done
    return 1
}
etcd_make() {
    local m
    certificates_make
    for m in 1 2 3; do
        ETCD_PORT[$m]=$(port_take)
        ETCD_PEER[$m]=$(port_take)
    done
    for m in 1 2 3; do member_start $m; done
    await 10 etcd_id || fail "no etcd: $(tail -n 5 "$WORK"/etcd-*.out)"
    ETCD_ID=$(etcd_id)
}
etcd_line() {
    local m urls=
    for m in 1 2 3; do urls+=",https://127.0.0.1:${ETCD_PORT[$m]}"; done
    echo "etcd:${urls#,} prefix=/u/ cluster=$ETCD_ID ca=$WORK/tls/ca.pem" \
        "cert=$WORK/tls/host.pem key=$WORK/tls/host.key"
}

# --- The record ---------------------------------------------------------------------------

# The only one, as JSON.
record_now() {
    # From "/u/" to "/u0", which are all that begin with the prefix.
    gateway /v3/kv/range '{"key":"L3Uv","range_end":"L3Uw"}' | jq -r '.kvs[0].value' | base64 -d
}
record_is() { # GENERATION HOLDER [RUNNING]
    local now pin=null
    [ "$2" = nobody ] || pin=$(cat "$WORK/$2.pin")
    now=$(record_now) || return 1
    [ "$(jq -r '"\(.generation) \(.holder)"' <<<"$now")" = "$1 $pin" ] &&
        { [ $# -lt 3 ] || [ "$(jq -r .running <<<"$now")" = "$3" ]; }
}

# --- All of it --------------------------------------------------------------------------------

# Two hosts that know each other over cables, and the etcd without any.
etcd_hosts_make() {
    local host peer
    host_make alder
    host_make birch
    for host in alder birch; do
        [ $host = alder ] && peer=birch || peer=alder
        us $host key show >"$WORK/$host.pin"
        cable_make $host-$peer "${PORT[$peer]}"
        us $host peer add $peer --address "127.0.0.1:${CABLE[$host-$peer]}" \
            --pin "$(us $peer key show)" >/dev/null || fail "peer add on $host"
        us $host arbiter set "$(etcd_line)" >/dev/null || fail "arbiter set on $host"
    done
    for host in alder birch; do
        await 5 arbiter_is_up $host || fail "$host can't ask the etcd: $(us $host arbiter show)"
    done
}
etcd_protected() {
    etcd_make
    etcd_hosts_make
    guest_make alder web
    protect_with_arbiter alder web birch
    watch_start
    record_is 1 alder true || fail "the etcd has $(record_now)"
}
