#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The first process of a kernel started by tests/kernel/runner.py: a writable view of the host's files, then the command.
# CHANNEL, the folder by which runner and guest talk, comes from the kernel's command line. In it lie `command`, a
# script, and `shared`, the folders that are the host's own, one a line. What we write there: `up`, `stdout`, `stderr`, `status`.
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# The host's files are the read-only layer below; every change goes into memory and is gone with the kernel.
mount -t tmpfs layers /mnt
mkdir /mnt/changes /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/changes,workdir=/mnt/work root /mnt/root
cd /mnt/root
mkdir -p .host
pivot_root . .host

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devices /dev
mkdir -p /dev/pts /dev/shm /dev/net
mount -t devpts terminals /dev/pts
mount -t tmpfs shared-memory /dev/shm
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
for link in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
    ln -sf "/proc/self/${link#*:}" "/dev/${link%%:*}"
done
# Sockets of the host's services lead nowhere here.
mount -t tmpfs runtime /run
mkdir /run/lock

while read -r folder; do
    mkdir -p "$folder"
    mount -t hostfs "host:$folder" "$folder" -o "$folder"
done <"$CHANNEL/shared"
umount -l /.host

hostname guest
ip link set lo up
export HOME=/root LANG=C.UTF-8 TERM=dumb
: >"$CHANNEL/up"
status=0
sh "$CHANNEL/command" </dev/null >"$CHANNEL/stdout" 2>"$CHANNEL/stderr" || status=$?
echo "$status" >"$CHANNEL/status.new"
mv "$CHANNEL/status.new" "$CHANNEL/status"
# Off; without this process the kernel would panic.
echo o >/proc/sysrq-trigger
sleep 60
