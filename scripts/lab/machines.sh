#!/usr/bin/env bash
# A lab of three machines on one: machine 1 is the Ray head, 2 and 3 are workers.
#
#   machines.sh up DIR        make them; writes DIR/cluster.yaml and DIR/id_ed25519
#   machines.sh kill DIR N    machine N dies: all its processes get SIGKILL at once, and
#                             its kernel closes their connections, so the others hear it
#   machines.sh vanish DIR N  the same with its cable cut first: the others hear nothing
#   machines.sh boot DIR N    machine N is there again: its disk kept, its /tmp empty
#   machines.sh down DIR      everything that `up` made is removed
#
# LAB_PYTHON  a Python that has ray; each machine sees its environment copy-on-write
# LAB_NAME    first part of every interface's and namespace's name (default: lab)
# LAB_NET     first three bytes of the lab's private /24 (default: 10.77.0)
#
# A machine is a network namespace on one bridge (its address) plus mount, PID, UTS
# and IPC namespaces (its home, /tmp, /run, /dev/shm, process list and name), with
# sshd as process 1. The PID namespace matters: `ray stop` ends every Ray process it
# can see. The rest of the file system is the host's own, so keep file_mounts below ~.
# Machines reach each other and the host, but not the internet. Change LAB_PYTHON's
# packages only while no lab is up. Needs root and Debian; installs what lacks.
set -euo pipefail

die() { echo "machines.sh: $*" >&2; exit 1; }

verb=${1:-} dir=${2:-} n=${3:-} self=$(realpath "$0")
case $verb in
  up | down) [ $# = 2 ] ;;
  kill | vanish | boot | _init) [ $# = 3 ] && [[ $n == [123] ]] ;;
  *) false ;;
esac || { sed -n '2,/^set/{/^#/s/^# \?//p}' "$self"; exit 2; }
[ "$(id -u)" = 0 ] || die "needs root"
machines="1 2 3"
ip_of() { echo "$net.1$1"; }

# What a running lab is made of lies in DIR/lab.env; only `up` takes it from the caller.
if [ "$verb" != up ]; then
  dir=$(realpath "$dir")
  [ -f "$dir/lab.env" ] || die "no lab in $dir"
  . "$dir/lab.env"
fi

install_tools() {
  local tool missing=
  for tool in ip ssh ssh-keygen rsync unshare /usr/sbin/sshd; do
    command -v "$tool" >/dev/null || missing=1
  done
  [ -z "$missing" ] || { apt-get update -q &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
      iproute2 openssh-client openssh-server rsync util-linux; } >&2
}

make_disk() { # N: the machine's own directories, its host key, who may log in
  local disk=$dir/disks/$1 m
  mkdir -p "$disk"/{root/.ssh,tmp,sshd,python}
  chmod 700 "$disk/root" "$disk/root/.ssh"
  ssh-keygen -q -t ed25519 -N '' -C "$name$1" -f "$disk/sshd/host_key"
  cp "$dir/id_ed25519.pub" "$disk/root/.ssh/authorized_keys"
  echo "export PATH=$python_bin:\$PATH RAY_USAGE_STATS_ENABLED=0" >"$disk/root/.bashrc"
  { echo "127.0.0.1 localhost"
    for m in $machines; do echo "$(ip_of "$m") $name$m"; done; } >"$disk/hosts"
}

init() { # runs inside machine N, as its process 1
  local python at i=0
  mount --bind "$dir/disks/$n" /mnt # from here on DIR may be hidden
  cd /
  hostname "$name$n"
  mount -t proc proc /proc
  mount -t tmpfs tmpfs /dev/shm
  mount -t tmpfs tmpfs /run
  mkdir -p /run/sshd
  mount --bind /mnt/hosts /etc/hosts
  find /mnt/tmp -mindepth 1 -delete
  chmod 1777 /mnt/tmp
  # Python's own directories, writable without touching the host's. One that lies in
  # /root or /tmp goes into what is about to be put there.
  for python in $pythons; do
    case $python in /root/* | /tmp/*) at=/mnt$python ;; *) at=$python ;; esac
    i=$((i + 1))
    mkdir -p "$at" "/mnt/python/$i"/{up,work}
    mount -t overlay overlay "$at" \
      -o "lowerdir=$python,upperdir=/mnt/python/$i/up,workdir=/mnt/python/$i/work"
  done
  mount --rbind /mnt/root /root
  mount --rbind /mnt/tmp /tmp
  ip link set lo up
  exec /usr/sbin/sshd -D -e -f /dev/null -h /mnt/sshd/host_key -o PidFile=none \
    -o UsePAM=no -o PasswordAuthentication=no -o PermitRootLogin=prohibit-password
}

boot() { # N
  local i
  [ -z "$(ip netns pids "$name$1")" ] || die "machine $1 is up"
  ip link set "$name$1" up
  setsid ip netns exec "$name$1" unshare --mount --pid --fork --uts --ipc \
    bash "$self" _init "$dir" "$1" </dev/null >>"$dir/disks/$1/console" 2>&1 &
  for i in {1..100}; do
    (: <"/dev/tcp/$(ip_of "$1")/22") 2>/dev/null && return
    sleep 0.1
  done
  tail -5 "$dir/disks/$1/console" >&2
  die "machine $1 does not answer"
}

lose() { # N
  local pids i
  for i in {1..50}; do
    pids=$(ip netns pids "$name$1" 2>/dev/null || true)
    [ -n "$pids" ] || return 0
    kill -KILL $pids 2>/dev/null || true
    sleep 0.1
  done
  die "machine $1 still has processes: $pids"
}

down() {
  local m
  for m in $machines; do
    ip netns list | grep -qw "^$name$m" || continue
    lose "$m"
    ip netns del "$name$m"
    ip link del "$name$m" 2>/dev/null || true # it goes with the namespace, but later
  done
  ip link del "$name" 2>/dev/null || true
  rm -rf "$dir"/{disks,lab.env,cluster.yaml,id_ed25519,id_ed25519.pub}
  rmdir --ignore-fail-on-non-empty "$dir"
}

up() {
  local m
  [ -x "${LAB_PYTHON:-}" ] || die "LAB_PYTHON must name a Python that has ray"
  install_tools
  dir=$(realpath -m "$dir")
  [ ! -e "$dir/lab.env" ] || die "$dir has a lab already"
  name=${LAB_NAME:-lab} net=${LAB_NET:-10.77.0}
  for m in "" $machines; do
    ! ip link show "$name$m" &>/dev/null && [ ! -e "/run/netns/$name$m" ] ||
      die "an interface or namespace $name$m exists: set LAB_NAME"
  done
  [ -z "$(ip -o addr show to "$net.0/24")" ] || die "$net.0/24 is in use: set LAB_NET"
  # The environment and, where it is not the system's, the Python below it.
  pythons=$("$LAB_PYTHON" -c 'import ray, sys
print(*sorted({sys.prefix, sys.base_prefix} - {"/usr"}))')
  python_bin=$("$LAB_PYTHON" -c 'import sys; print(sys.prefix)')/bin
  mkdir -p "$dir"
  declare -p name net pythons python_bin >"$dir/lab.env"
  trap down EXIT # until all three are up

  ip link add "$name" type bridge
  ip addr add "$net.1/24" dev "$name"
  ip link set "$name" up
  ssh-keygen -q -t ed25519 -N '' -C "$name" -f "$dir/id_ed25519"
  for m in $machines; do
    make_disk "$m"
    ip netns add "$name$m"
    ip link add "$name$m" master "$name" type veth peer name eth0 netns "$name$m"
    ip -n "$name$m" addr add "$(ip_of "$m")/24" dev eth0
    ip -n "$name$m" link set eth0 up
    # No one forwards, but Ray asks the routes which address is its own.
    ip -n "$name$m" route add default via "$net.1"
    boot "$m"
  done
  sed -e "s|@NAME@|$name|; s|@KEY@|$dir/id_ed25519|" \
    -e "s|@HEAD@|$(ip_of 1)|; s|@WORKERS@|$(ip_of 2), $(ip_of 3)|" \
    "$(dirname "$self")/cluster.yaml" >"$dir/cluster.yaml"
  trap - EXIT

  echo "Three machines are up: $(for m in $machines; do ip_of "$m"; done | xargs)"
  echo "Next: $python_bin/ray up -y $dir/cluster.yaml"
  echo "      $python_bin/ray submit $dir/cluster.yaml SCRIPT.py [ARGS]"
  echo "A shell: ssh -i $dir/id_ed25519 root@$(ip_of 1)"
}

case $verb in
  up | down) $verb ;;
  kill) lose "$n" ;;
  vanish) ip link set "$name$n" down && lose "$n" ;;
  boot) boot "$n" ;;
  _init) init ;;
esac
