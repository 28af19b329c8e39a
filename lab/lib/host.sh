# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# The hosts: their QEMU processes, the monitor and the console, ssh to dom0, and
# the product that is installed in them.

host_pid() { # HOST: pid of its QEMU, if that runs
    local pid
    pid=$(cat "$STATE/$1/qemu.pid" 2>/dev/null) || return
    # the pid may be somebody else's by now
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null |
        grep -qF -- "-name $NS-$1 " || return
    echo "$pid"
}

host_runs() { # HOST
    host_pid "$1" >/dev/null
}

need_running() { # HOST
    need_host "$1"
    host_runs "$1" || die "$1 does not run"
}

cpu_model() { # HOST
    if [ -n "${CPU[$1]:-}" ]; then
        echo "${CPU[$1]}"
    elif has_kvm; then
        echo host
    else
        # +svm,+npt gives Xen HVM and HAP. Keep it plain: with AES-NI emulated,
        # ChaCha20 gets slower than without.
        echo qemu64,+svm,+npt
    fi
}

# What a host boots from is written down when the lab goes up: a host that is
# started again, or loaded, must get the same.
machine_write() { # HOST
    mkdir -p "$STATE/$1"
    cat >"$STATE/$1/machine" <<MACHINE
ROOT_IMAGE=$ROOT_IMAGE
DOM0_IMAGE=$DOM0_IMAGE
GUEST_IMAGE=$GUEST_IMAGE
CPU_MODEL=$(cpu_model "$1")
MEMORY=$MEMORY
MACHINE
}

machine_disks() { # HOST
    [ -e "$STATE/$1/persist.qcow2" ] ||
        qemu-img create -q -f qcow2 "$STATE/$1/persist.qcow2" 8G ||
        die "cannot make $1's disk"
    [ -e "$STATE/product.img" ] || truncate -s 256M "$STATE/product.img"
}

machine_args() { # HOST: QEMU's arguments, one a line
    local host=$1 number link byte drive
    local ROOT_IMAGE DOM0_IMAGE GUEST_IMAGE CPU_MODEL MEMORY accel=tcg
    number=$(host_number "$host")
    # shellcheck disable=SC1090
    . "$STATE/$host/machine"
    has_kvm && accel=kvm
    cat <<ARGS
-name
$NS-$host
-machine
q35,accel=$accel
-cpu
$CPU_MODEL
-smp
1
-m
$MEMORY
-display
none
-no-reboot
-kernel
$ROOT_IMAGE/xen
-append
dom0_mem=1024M,max:1024M console=com1 com1=115200 loglvl=warning guest_loglvl=warning
-initrd
$ROOT_IMAGE/vmlinuz console=hvc0 net.ifnames=0 quiet panic=1 host=$host,$DOM0_IMAGE/initrd
-chardev
socket,id=console,path=$RUN/$host.console,server=on,wait=off,logfile=$STATE/$host/console.log,logappend=on
-serial
chardev:console
-qmp
unix:$RUN/$host.qmp,server=on,wait=off
-pidfile
$STATE/$host/qemu.pid
-object
rng-random,id=rng,filename=/dev/urandom
-device
virtio-rng-pci,rng=rng
ARGS
    for drive in "root,raw,on,$ROOT_IMAGE/root.sqfs" \
        "guest,raw,on,$GUEST_IMAGE/guest.sqfs" \
        "persist,qcow2,off,$STATE/$host/persist.qcow2" \
        "product,raw,on,$STATE/product.img"; do
        machine_drive "$drive"
    done
    for link in $LINKS; do
        byte=0$(link_byte "$link")
        printf '%s\n' -netdev \
            "tap,id=$link,ifname=$(tap_name "$host" "$link"),script=no,downscript=no" \
            -device "virtio-net-pci,netdev=$link,mac=52:54:00:$byte:00:0$number"
    done
}

# cache=unsafe: a flush reaches the machine's kernel, not its disk. That is as far
# as a killed QEMU needs it, and hosts don't wait for the machine's other work.
machine_drive() { # ID,FORMAT,READ-ONLY,FILE
    local id format frozen file
    IFS=, read -r id format frozen file <<<"$1"
    printf '%s\n' -drive \
        "if=none,id=$id,format=$format,readonly=$frozen,cache=unsafe,file=$file" \
        -device "virtio-blk-pci,drive=$id,serial=$id"
}

# Starts a host's QEMU; more arguments are added to QEMU's.
host_start() { # HOST [ARG...]
    local host=$1 args
    shift
    host_runs "$host" && die "$host runs already"
    [ -e "$STATE/$host/machine" ] || die "the lab was never up"
    mkdir -p "$RUN"
    ssh_close "$host"
    rm -f "$RUN/$host".*
    machine_disks "$host"
    mapfile -t args < <(machine_args "$host")
    printf '\n--- %s starts %(%F %T)T\n' "$host" >>"$STATE/$host/console.log"
    detached ip netns exec "$NS" qemu-system-x86_64 "${args[@]}" "$@" \
        -daemonize || die "QEMU of $host did not start"
}

# The plug: nothing is flushed, no FIN, no RST.
host_kill() { # HOST
    local pid
    pid=$(host_pid "$1") && kill -KILL "$pid"
    ssh_close "$1"
    [ -n "$pid" ] || return 0
    while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
    rm -f "$STATE/$1/qemu.pid" "$RUN/$1".*
}

# One command of QEMU's monitor; prints what it answers. Over QMP, because there
# an answer has an end.
monitor() { # HOST COMMAND
    local line answer='' rc=1
    host_runs "$1" || return 1
    coproc QMP { socat - "UNIX-CONNECT:$RUN/$1.qmp" 2>/dev/null; }
    # shellcheck disable=SC2153 # coproc makes it
    local in=${QMP[1]} out=${QMP[0]} pid=$QMP_PID
    printf '%s\n' '{"execute":"qmp_capabilities"}' \
        '{"execute":"human-monitor-command",' \
        "\"arguments\":{\"command-line\":\"$2\"}}" >&"$in"
    while read -r line <&"$out"; do
        case $line in
        '{"return": "'*)
            answer=${line#*: \"} answer=${answer%\"*} rc=0
            break
            ;;
        '{"error"'*) break ;;
        esac
    done
    exec {in}>&-
    wait "$pid" 2>/dev/null
    printf '%b' "$answer"
    return $rc
}

console_tail() { # HOST
    say "the end of $1's console:"
    tail -n 25 "$STATE/$1/console.log" | tr -d '\r' | sed "s/^/  $1| /" >&2
}

# --- ssh ------------------------------------------------------------------------

ssh_config_write() {
    local host
    # algorithms that are cheap without special instructions
    for host in $HOSTS; do
        cat <<CONFIG
Host $host
  HostName 10.0.7.$(host_number "$host")
  HostKeyAlias $host
  User root
  IdentityFile $STATE/id
  IdentitiesOnly yes
  UserKnownHostsFile $STATE/known_hosts
  StrictHostKeyChecking yes
  Ciphers chacha20-poly1305@openssh.com
  KexAlgorithms curve25519-sha256
  Compression no
  ConnectTimeout 10
  ServerAliveInterval 20
  ServerAliveCountMax 15
  ControlPath $RUN/$host.ssh
  LogLevel ERROR
CONFIG
    done >"$STATE/ssh_config"
    install -m 600 "$KEYS_IMAGE/id" "$STATE/id"
    install -m 644 "$KEYS_IMAGE/known_hosts" "$STATE/known_hosts"
}

ssh_is_open() { # HOST
    ssh -F "$STATE/ssh_config" -O check "$1" >/dev/null 2>&1
}

# One connection a host for all runs. The process that keeps it must not inherit
# our output, or a script that reads ours would wait for it.
ssh_open() { # HOST
    ssh_is_open "$1" && return
    (
        # of two at once the second one's would be left over
        flock 9
        ssh_is_open "$1" && exit
        rm -f "$RUN/$1.ssh"
        detached ip netns exec "$NS" setsid ssh -F "$STATE/ssh_config" \
            -M -N -f "$1" >/dev/null 2>&1
    ) 9>"$RUN/$1.lock"
}

ssh_close() { # HOST
    [ -S "$RUN/$1.ssh" ] || return 0
    ssh -F "$STATE/ssh_config" -O exit "$1" >/dev/null 2>&1
    rm -f "$RUN/$1.ssh"
}

# One argument is a line for the host's shell; several are a command and its
# arguments as they are.
host_run() { # HOST CMD...
    local host=$1 command
    shift
    ssh_open "$host" || die "$host does not answer on ssh"
    if [ $# -eq 1 ]; then command=$1; else command=$(printf '%q ' "$@"); fi
    ssh -F "$STATE/ssh_config" "$host" "$command"
}

host_is_ready() { # HOST
    # a host whose QEMU is gone will never be
    host_runs "$1" || return 0
    ssh_open "$1" && host_run "$1" 'test -e /run/lab/ready -o -e /run/lab/failed' \
        </dev/null 2>/dev/null
}

host_wait() { # HOST: until its dom0 is up
    if ! wait_until 30 host_is_ready "$1"; then
        console_tail "$1"
        die "$1 did not get ready in time"
    fi
    if ! host_runs "$1" ||
        ! host_run "$1" 'test -e /run/lab/ready' </dev/null; then
        console_tail "$1"
        die "$1 did not boot"
    fi
    host_run "$1" "date -s @$EPOCHREALTIME >/dev/null" </dev/null
}

# --- the product ----------------------------------------------------------------

# The product is a tar archive on a raw disk: a host that boots unpacks it before
# our daemon is started. Configuration that is on the hosts already stays.
product_pack() { # DIR
    local image=$STATE/product.img.new
    tar -c --owner=0 --group=0 -C "$1" -f "$image" . || die "cannot pack $1"
    truncate -s 256M "$image"
    mv "$image" "$STATE/product.img"
}

# shellcheck disable=SC2016 # for the host's shell
# Synced: a host whose plug is pulled soon after has its configuration.
product_install() { # DIR HOST
    host_runs "$2" || return 0
    tar -c --owner=0 --group=0 -C "$1" . |
        host_run "$2" 'cat >/run/lab/product.tar && cd / &&
            tar -x --keep-directory-symlink --exclude=./etc/understudy \
                -f /run/lab/product.tar &&
            tar -x --keep-directory-symlink --skip-old-files \
                -f /run/lab/product.tar &&
            rm /run/lab/product.tar && sync && ldconfig &&
            if test -s /run/lab/understudyd.pid; then
                kill "$(cat /run/lab/understudyd.pid)"
                true
            fi' || die "cannot install the product on $2"
}
