#!/usr/bin/env bash
# A real SLURM of several nodes on one machine, by its loopback addresses alone. It needs slurmctld,
# slurmd and slurm-client; no root, no systemd, no munge.
#
#   slurm_sandbox.sh start DIR [NODES] [GPUS] [PORT] [JOB]    then: export SLURM_CONF=DIR/slurm.conf
#   slurm_sandbox.sh stop DIR
#
# It listens at PORT and, for each node, one more. Jobs are numbered from JOB on: their ranks meet at
# ports that follow from the number, and those of two sandboxes must not be the same.
# Partitions: debug, whose jobs give way to those of urgent, a minute after they are told.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
command=$1 dir=$(realpath -m "$2") nodes=${3:-8} gpus=${4:-8} port=${5:-6917} job=${6:-1}
export SLURM_CONF=$dir/slurm.conf

# SLURM wants a character device behind each GPU: nodes that root makes, or terminals.
devices() {
  if [ "$(id -u)" = 0 ] && mknod "$dir/gpu0" c 1 3 2>/dev/null; then
    for i in $(seq 1 $((gpus - 1))); do mknod "$dir/gpu$i" c 1 3; done
    echo "$dir/gpu[0-$((gpus - 1))]"
  else
    echo "/dev/tty[0-$((gpus - 1))]"
  fi
}

configure() {
  echo "NodeName=127.0.0.[1-$nodes] Name=gpu File=$(devices)" > "$dir/gres.conf"
  cat > "$SLURM_CONF" <<CONF
ClusterName=sandbox
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$port
FirstJobId=$job
SlurmctldPidFile=$dir/slurmctld.pid
SlurmctldLogFile=$dir/slurmctld.log
StateSaveLocation=$dir/state
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmdLogFile=$dir/slurmd-%n.log
SlurmdSpoolDir=$dir/spool-%n
# Without munge and cgroups. A requeued job waits until its old credential is over: 2 minutes.
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# Otherwise requeued jobs wait for loops of half a minute.
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=30
ReturnToService=2
# So that nodes may claim more than this machine has.
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=127.0.0.[1-$nodes] NodeHostname=localhost NodeAddr=127.0.0.[1-$nodes] Port=[$((port + 1))-$((port + nodes))] CPUs=$((2 * gpus)) RealMemory=8000 Gres=gpu:$gpus State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES PriorityTier=1 GraceTime=60 DefaultTime=10 MaxTime=60 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF DefaultTime=10 MaxTime=60 State=UP
CONF
}

start() {
  mkdir -p "$dir/state"
  for i in $(seq "$nodes"); do mkdir -p "$dir/spool-127.0.0.$i"; done
  configure
  slurmctld -f "$SLURM_CONF"
  for i in $(seq "$nodes"); do slurmd -f "$SLURM_CONF" -N "127.0.0.$i"; done
  for _ in $(seq 120); do
    [ "$(sinfo -h -t idle -p debug -o %D 2>/dev/null)" = "$nodes" ] && return
    sleep 0.25
  done
  echo "the nodes did not come up: see $dir/slurmctld.log and $dir/slurmd-*.log" >&2
  exit 1
}

stop() {
  scancel --user "$(id -un)" --state PENDING 2>/dev/null || true
  scancel --user "$(id -un)" --full --signal KILL 2>/dev/null || true
  for _ in $(seq 80); do [ -n "$(squeue -h 2>/dev/null)" ] || break; sleep 0.25; done
  pids=$(cat "$dir"/slurmd-*.pid "$dir"/slurmctld.pid 2>/dev/null || true)
  [ -z "$pids" ] || kill $pids 2>/dev/null || true
  for _ in $(seq 80); do ls "$dir"/*.pid >/dev/null 2>&1 || return 0; sleep 0.25; done
}

"$command"
