#!/bin/sh
# What `make test-system` drives: Chromium, Prometheus and systemd's tools, from Debian's packages. Quick where all is there already;
# where it cannot install, it says what is left out and why, and the tests that need it skip with that reason. It never fails.
set -u

wanted=''
for pair in chromium:chromium prometheus:prometheus promtool:prometheus systemctl:systemd systemd-analyze:systemd \
    unshare:util-linux pgrep:procps useradd:passwd; do
    package=${pair#*:}
    command -v "${pair%%:*}" > /dev/null || case " $wanted " in *" $package "*) ;; *) wanted="$wanted $package" ;; esac
done
[ -n "$wanted" ] || exit 0

leave_out() {
    echo "test-system: not installed:$wanted ($1); the tests that need them skip"
    exit 0
}

[ "$(id -u)" = 0 ] || leave_out 'only root can'
command -v apt-get > /dev/null || leave_out 'no apt-get here'
log=$(mktemp)
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then # packages are to start nothing: the tests start what they need, on 127.0.0.1
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy" "$log"' EXIT
else
    trap 'rm -f "$log"' EXIT
fi

apt() {
    DEBIAN_FRONTEND=noninteractive timeout 600 apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20 \
        -o Acquire::https::Timeout=20 -o APT::Update::Error-Mode=any "$@" > "$log" 2>&1
}

said() { tail -n 1 "$log"; }

echo "test-system: installing$wanted"
apt update || leave_out "apt-get update: $(said)"
# shellcheck disable=SC2086 # one word for each package
apt install -y --no-install-recommends $wanted || leave_out "apt-get install: $(said)"
case " $wanted " in *' prometheus '*) systemctl --quiet disable prometheus > /dev/null 2>&1 ;; esac
exit 0
