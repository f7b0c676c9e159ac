#!/usr/bin/env bash
# Starts a Slurm of two nodes on this machine, as root: slurm_up.sh [FOLDER]. It replaces a configuration that is there.
set -euo pipefail
cd /
folder=${1:-/tmp/posbench-slurm}
host=$(hostname -s)
mkdir -p "$folder"/{controller,n1,n2}
if ! command -v slurmctld slurmd munged >/dev/null; then
	export DEBIAN_FRONTEND=noninteractive
	{ apt-get update -q && apt-get install -yq --no-install-recommends slurm-wlm slurm-client munge; } \
		>"$folder/apt.log" 2>&1 || { tail -5 "$folder/apt.log" >&2; exit 1; }
fi
grep -q ' n1 n2$' /etc/hosts || echo '127.0.0.1 n1 n2' >>/etc/hosts
install -d -o munge -g munge /run/munge
pgrep -x munged >/dev/null || runuser -u munge -- munged
cat >/etc/slurm/slurm.conf <<END
ClusterName=posbench
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$folder/controller
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/controller.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/controller.log
SlurmdLogFile=$folder/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=10
MaxArraySize=1001
MaxJobCount=5000
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,requeue_delay=5
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=4 RealMemory=2000 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=4 RealMemory=2000 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
pgrep -x slurmctld >/dev/null || slurmctld
for node in n1 n2; do
	{ [ -s "$folder/$node.pid" ] && kill -0 "$(cat "$folder/$node.pid")" 2>/dev/null; } || slurmd -N "$node"
done
for _ in $(seq 60); do
	[ "$(sinfo --noheader --Node --states idle,mixed,allocated --format %N | sort -u | wc -l)" = 2 ] && exit 0
	sleep 0.5
done
sinfo >&2
tail -5 "$folder"/*.log >&2
exit 1
