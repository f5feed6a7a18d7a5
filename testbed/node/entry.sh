#!/bin/sh
# PID 1 of a node until it execs systemd: turns a container into something that behaves like a host.
set -eu

mount --make-rshared /
# All containers of a machine share this limit, and 128 is enough for one bed only: beside a second one kubelets end with
# "too many open files". It is raised, never lowered, and stays until the machine restarts.
limit=/proc/sys/fs/inotify/max_user_instances
if [ "$(cat $limit)" -lt 8192 ]; then
	echo 8192 >$limit || echo "bed: cannot raise fs.inotify.max_user_instances to 8192: do it on the machine" >&2
fi
# Open to user namespaces, as udev makes it on a host.
chmod 666 /dev/fuse

if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
	mount -o remount,bind,rw /sys/fs/cgroup
	# The controllers can be handed on only when no process sits at the top: systemd moves itself as well.
	mkdir -p /sys/fs/cgroup/init.scope
	echo $$ >/sys/fs/cgroup/init.scope/cgroup.procs
else
	mount -o remount,bind,rw /sys/fs/cgroup || true
	for controller in /sys/fs/cgroup/*; do
		if mountpoint -q "$controller"; then
			mount -o remount,bind,rw "$controller"
		fi
	done
	# systemd mounts each controller that /proc/cgroups lists, and fails on those that the machine does not mount.
	# bed-proc-cgroups.service takes the copy away again.
	mkdir -p /run/bed
	{
		head -n 1 /proc/cgroups
		tail -n +2 /proc/cgroups | while read -r name rest; do
			if [ -e "/sys/fs/cgroup/$name" ]; then
				printf '%s\t%s\n' "$name" "$rest"
			fi
		done
	} >/run/bed/cgroups
	mount --bind /run/bed/cgroups /proc/cgroups
fi

# Docker binds these three files; a host has plain files, which tools replace by renaming.
for name in hosts hostname resolv.conf; do
	if mountpoint -q "/etc/$name"; then
		cp "/etc/$name" "/run/bed-$name"
		umount "/etc/$name"
		if [ ! -s "/etc/$name" ]; then
			cat "/run/bed-$name" >"/etc/$name"
		fi
	fi
done
# The resolver on 127.0.0.11 exists in the container only; pods need one that they can reach.
if [ -s /etc/bed/resolv.conf ]; then
	cat /etc/bed/resolv.conf >/etc/resolv.conf
fi

if [ ! -e /etc/bed/booted ]; then
	update-ca-certificates >/dev/null 2>&1 || echo "bed: update-ca-certificates failed" >&2
	rm -f /etc/machine-id
	systemd-machine-id-setup >/dev/null 2>&1 || true
	touch /etc/bed/booted
fi

exec /lib/systemd/systemd --log-target=console --show-status=false
