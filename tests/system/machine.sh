#!/bin/sh
# A machine to try the unit on: systemd as process 1 of namespaces of its own, over a copy-on-write view of this host's files.
#   machine.sh FOLDER PYTHON    FOLDER/driver runs as root on it; what it prints comes to stdout, and the machine ends with it.
# Needs root, unshare and systemd. Nothing of the host is changed: what is written goes to a tmpfs.
set -eu
folder=$1 python=$2 here=$(cd "$(dirname "$0")/../.." && pwd)

if [ "${SYNCD_MACHINE:-}" != inside ]; then
    unified=/sys/fs/cgroup
    [ -d "$unified/unified" ] && unified=$unified/unified
    group=$unified/syncd-test-$$
    mkdir "$group"
    disk=$(mktemp -d /tmp/syncd-machine-XXXXXX)
    # shellcheck disable=SC2016 # $1 and the others are the inner shell's
    SYNCD_MACHINE=inside sh -c 'echo $$ > "$1/cgroup.procs"; shift; exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child sh "$@"' \
        sh "$group" "$0" "$folder" "$python" "$disk" || true # systemd leaves with a code of its own
    rmdir "$disk"
    for _ in 1 2 3 4 5; do # the kernel may still be ending the last of them
        [ -d "$group" ] && ! find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || break
        sleep 0.2
    done
    exit 0
fi

mount --make-rprivate /
disk=$3
mount -t tmpfs -o mode=755 none "$disk"
mkdir "$disk/upper" "$disk/work" "$disk/root"
mount -t overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" none "$disk/root"
root=$disk/root
base=$("$python" -c 'import sys; print(sys.base_prefix)')
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$root$folder" && mount --bind "$folder" "$root$folder" # where it is a file system of its own
# Where the user syncd may read them, whatever the unit hides: the checkout may be in /tmp, or in somebody's home.
mkdir -p "$root/opt/python" "$root/opt/project" "$root/opt/packages"
mount --bind "$base" "$root/opt/python"
mount --bind "$here" "$root/opt/project"
mount --bind "$packages" "$root/opt/packages"
mount -t proc none "$root/proc"
mount -t sysfs none "$root/sys"
mount -t cgroup2 none "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 none "$root/run"

# Nothing runs on it but syncd and the driver.
rm -rf "$root"/etc/systemd/system/* "$root"/lib/systemd/system/*.target.wants "$root"/lib/systemd/system-generators
cp -r "$here/systemd/syncd.service" "$root/etc/systemd/system/"
version=$(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')
[ "$version" -ge 254 ] || cp -r "$here/systemd/syncd.service.d" "$root/etc/systemd/system/"
mkdir -p "$root/etc/systemd/system/syncd.service.d"
cat > "$root/etc/systemd/system/syncd.service.d/test.conf" <<END
[Unit]
DefaultDependencies=no
[Service]
StandardOutput=append:$folder/log
StandardError=append:$folder/log
END
cat > "$root/etc/systemd/system/driver.service" <<END
[Unit]
DefaultDependencies=no
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/sh -eu $folder/driver
StandardOutput=append:$folder/out
StandardError=append:$folder/out
TimeoutStartSec=300
END
mkdir -p "$root/opt/syncd/bin" "$root/etc/syncd"
cat > "$root/opt/syncd/bin/syncd" <<END
#!/bin/sh
export PYTHONDONTWRITEBYTECODE=1 LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/project:/opt/packages
exec /opt/python/bin/python3 -m syncd "\$@"
END
chmod 755 "$root/opt/syncd/bin/syncd"
chroot "$root" useradd --system --home-dir /var/lib/syncd --shell /usr/sbin/nologin syncd
mkdir "$root/old"
cd "$root"
pivot_root . old # a chroot could not have users of its own (PrivateUsers=)
exec chroot . sh -c 'umount -l /old && mount --make-rshared / && exec "$@"' sh env -i container=syncd-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=driver.service --log-target=console --show-status=no --log-level=warning
