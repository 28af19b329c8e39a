# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# The lab's network: one namespace with three bridges, public, replication and
# mgmt, and a tap for each host on each. Nothing of it is in the machine's own
# network. The namespace is also the outside client's place.

host_number() { # HOST
    case $1 in alder) echo 1 ;; birch) echo 2 ;; esac
}

link_byte() { # LINK: third byte of its IPv4 addresses, fourth of its MACs
    case $1 in public) echo 5 ;; replication) echo 6 ;; mgmt) echo 7 ;; esac
}

tap_name() { # HOST LINK; 15 characters are all an interface's name may have
    echo "$1-${2:0:6}"
}

net_is_up() {
    ip netns list 2>/dev/null | grep -qE "^$NS( |$)"
}

net_up() {
    local link host
    net_is_up && return
    ip netns add "$NS" || die "cannot add a network namespace (root?)"
    {
        echo "link set lo up"
        for link in $LINKS; do
            echo "link add $link type bridge forward_delay 0 stp_state 0" \
                "mcast_snooping 0"
            echo "link set $link up"
            echo "addr add 10.0.$(link_byte "$link").100/24 dev $link"
        done
        echo "addr add fd00:5::100/64 dev public nodad"
        for host in $HOSTS; do
            for link in $LINKS; do
                echo "tuntap add $(tap_name "$host" "$link") mode tap"
                echo "link set $(tap_name "$host" "$link") master $link up"
            done
        done
    } | ip -n "$NS" -batch - || die "cannot make the lab's network"
}

# Taps, bridges and all go with the namespace.
net_down() {
    net_is_up || return 0
    ip netns delete "$NS"
}

# A program outside that outlives us. Its output is in outside/log.
outside_keep() { # CMD...
    mkdir -p "$STATE/outside"
    # shellcheck disable=SC2016 # for the other shell
    detached setsid --fork ip netns exec "$NS" sh -c 'echo $$ >>"$0"; exec "$@"' \
        "$STATE/outside/pids" "$@" >>"$STATE/outside/log" 2>&1
}

# A pid that is not in the namespace is somebody else's by now.
outside_end() {
    local pid
    for pid in $(ip netns pids "$NS" 2>/dev/null |
        grep -xFf "$STATE/outside/pids" 2>/dev/null); do
        kill -KILL "$pid"
    done
    rm -f "$STATE/outside/pids"
}

link_set() { # HOST LINK up|down
    ip -n "$NS" link set "$(tap_name "$1" "$2")" "$3"
}

link_state() { # HOST LINK
    case $(ip -n "$NS" -br link show "$(tap_name "$1" "$2")" 2>/dev/null) in
    '') echo absent ;;
    *[\<,]UP[\>,]*) echo up ;;
    *) echo cut ;;
    esac
}
