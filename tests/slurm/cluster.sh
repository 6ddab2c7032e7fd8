#!/usr/bin/env bash
# A real Slurm cluster of two nodes on this one host, each with two pretended GPUs. Jobs of the partition `urgent` preempt
# those of `debug`.
# usage: cluster.sh start|stop DIR     then: export SLURM_CONF=DIR/slurm.conf
# needs: root, and apt-get install --no-install-recommends slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge
set -euo pipefail
umask 022 # the nodes' users read the configuration
verb=${1:?start or stop}
dir=$(realpath "${2:?a folder}")
export SLURM_CONF=$dir/slurm.conf

stop() {
    local pid
    for pid in "$dir"/*.pid; do
        if [[ -f $pid ]]; then kill "$(cat "$pid")" 2>/dev/null || true; fi
    done
}

start() {
    local host gpu node
    host=$(hostname -s)
    mkdir -p "$dir"/{state,log,spool/n1,spool/n2}
    for gpu in 0 1 2 3; do
        [[ -e $dir/gpu$gpu ]] || mknod "$dir/gpu$gpu" c 1 3
    done
    cat >"$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
MpiDefault=none
ReturnToService=2
GresTypes=gpu
SlurmdParameters=config_overrides
KillWait=15
MinJobAge=600
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=4 RealMemory=8000 Gres=gpu:2 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=debug Nodes=n[1-2] Default=YES MaxTime=60 State=UP OverSubscribe=NO GraceTime=60
PartitionName=urgent Nodes=n[1-2] MaxTime=60 State=UP OverSubscribe=NO PriorityTier=2 PreemptMode=OFF
END
    cat >"$dir/gres.conf" <<END
NodeName=n1 Name=gpu File=$dir/gpu[0-1]
NodeName=n2 Name=gpu File=$dir/gpu[2-3]
END
    if ! munge --no-input 2>/dev/null | unmunge >/dev/null 2>&1; then
        install --directory --owner munge --group munge --mode 755 /run/munge
        runuser -u munge -- /usr/sbin/munged
    fi
    slurmctld -c
    for node in n1 n2; do slurmd -N "$node"; done
    for _ in $(seq 100); do
        [[ $(sinfo --noheader --Node --partition=debug --format=%T 2>/dev/null | grep -c '^idle$') = 2 ]] && return
        sleep 0.2
    done
    sinfo --Node --long >&2
    return 1
}

"$verb"
