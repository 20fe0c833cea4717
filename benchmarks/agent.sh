#!/bin/sh
# In place of ssh, for mpirun: runs a command line on one of the hosts that hosts.py made.
# MPIADV_HOSTS lists them as ADDRESS=PID.
set -eu
address=$1
shift
for host in $MPIADV_HOSTS; do
    if [ "${host%%=*}" = "$address" ]; then
        exec nsenter --target="${host#*=}" --net --uts -- sh -c "$*"
    fi
done
echo "agent.sh: no host $address among $MPIADV_HOSTS" >&2
exit 1
