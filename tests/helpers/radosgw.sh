#!/usr/bin/env bash
# A real S3 server on loopback, for tests: Ceph's radosgw before a monitor and an OSD of one copy.
#
#   radosgw.sh start DIR PORT    prints the environment that a client needs, a NAME=VALUE a line
#   radosgw.sh stop DIR          ends what was started; DIR may be removed then
#
# Installs Debian's packages where they lack (as root). PORT + 1 is the monitor's; the OSD takes free ports from 6800.
set -euo pipefail

verb=$1 dir=$(realpath -m "$2")
daemons=(radosgw ceph-osd ceph-mon) # in the order in which they stop

die() { echo "radosgw.sh: $*; see $dir/log" >&2; exit 1; }
ceph_run() { timeout 120 "$1" -c "$dir/ceph.conf" "${@:2}" >>"$dir/log/start.log" 2>&1 || die "$1 failed"; }

# A pid file can outlive its process: the process must have been started with our configuration.
pid_of() {
  local pid
  pid=$(cat "$dir/run/$1.pid" 2>/dev/null) || return 1
  grep -qzxF "$dir/ceph.conf" "/proc/$pid/cmdline" 2>/dev/null && echo "$pid"
}

wait_for() { # SECONDS COMMAND...
  local deadline=$((SECONDS + $1))
  until "${@:2}" >/dev/null 2>&1; do ((SECONDS < deadline)) || return 1; sleep 0.1; done
}

launch() {
  ceph_run "$1" --pid-file "$dir/run/$1.pid" "${@:2}"
  wait_for 30 pid_of "$1" || die "$1 does not start"
}

install_packages() {
  local name missing=
  for name in "${daemons[@]}"; do command -v "$name" >/dev/null || missing=1; done
  [[ $missing ]] || return 0
  [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || die "Ceph is not installed, and only root could"
  { apt-get update &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${daemons[@]}"
  } >"$dir/log/install.log" 2>&1 || die "the packages cannot be installed"
}

write_config() {
  cat >"$dir/ceph.conf" <<CONF
[global]
fsid = $1
mon host = [v2:127.0.0.1:$((port + 1))]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
run dir = $dir/run
crash dir = $dir/log
log file = $dir/log/\$name.log
mon cluster log file = $dir/log/cluster.log
mon data = $dir/mon
osd data = $dir/osd
rgw data = $dir/rgw
admin socket =
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
paxos propose interval = 0.05
mon data avail crit = 1

[osd]
osd objectstore = bluestore
bluestore block size = $((20 << 30))
osd memory target = $((1 << 30))

[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw thread pool size = 64
CONF
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && grep -q ' 200 ' <&3); }

start() {
  local fsid
  fsid=$(cat /proc/sys/kernel/random/uuid)
  mkdir -p "$dir"/{run,log,mon,osd,rgw}
  install_packages
  write_config "$fsid"
  ceph_run monmaptool --create --clobber --fsid "$fsid" --addv a "[v2:127.0.0.1:$((port + 1))]" "$dir/monmap"
  ceph_run ceph-mon -i a --mkfs --monmap "$dir/monmap"
  launch ceph-mon -i a
  ceph_run ceph --connect-timeout 30 osd new "$fsid" 0
  ceph_run ceph-osd -i 0 --mkfs --osd-uuid "$fsid"
  launch ceph-osd -i 0
  ceph_run radosgw-admin user create --uid test --display-name test --access-key test-access-key --secret-key test-secret-key
  launch radosgw -n client.rgw
  wait_for 60 answers || die "S3 does not answer on port $port"
  printf '%s\n' "AWS_ENDPOINT_URL=http://127.0.0.1:$port" AWS_ACCESS_KEY_ID=test-access-key \
    AWS_SECRET_ACCESS_KEY=test-secret-key AWS_DEFAULT_REGION=us-east-1
}

stop() {
  local name pid
  for name in "${daemons[@]}"; do
    pid=$(pid_of "$name") || continue
    kill "$pid"
    wait_for 30 eval "! kill -0 $pid" || kill -KILL "$pid"
  done
}

case $verb in
  start) port=$3; start ;;
  stop) stop ;;
  *) die "no such command: $verb" ;;
esac
