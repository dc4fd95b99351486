# cluster.sh - a Slurm of one machine in a folder of its own, for tests: munged, slurmctld and slurmd are started by
# slurm_start FOLDER and ended by slurm_stop. Sourced. slurm_start returns 1 and sets slurm_reason where it cannot.
slurm_pids=()
slurm_reason=""

slurm_need() {
    local program
    for program in munged slurmctld slurmd sbatch squeue scontrol; do
        command -v "$program" >/dev/null || PATH=$PATH:/usr/sbin command -v "$program" >/dev/null ||
            { slurm_reason="no $program: install the packages slurm-wlm and munge"; return 1; }
    done
    [ "$(id -u)" = 0 ] || { slurm_reason="starting slurmd takes root"; return 1; }
}

slurm_start() {
    local folder=$1 host cores i
    PATH=$PATH:/usr/sbin
    slurm_need || return 1
    host=$(hostname -s) cores=$(nproc)
    mkdir -p "$folder"/{state,spool,log,munge}
    chmod 700 "$folder/munge"
    dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 status=none
    chmod 600 "$folder/munge/key"
    cat >"$folder/slurm.conf" <<CONF
ClusterName=maskbench
SlurmctldHost=$host
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
SlurmctldPort=26817
SlurmdPort=26818
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
MinJobAge=3600
KillWait=20
ReturnToService=2
MpiDefault=none
JobRequeue=1
NodeName=$host CPUs=$cores RealMemory=500 State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF=$folder/slurm.conf
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
        --log-file="$folder/log/munged.log" --seed-file="$folder/munge/seed" >"$folder/log/start" 2>&1 ||
        { slurm_reason="munged: $(tail -n 1 "$folder/log/start")"; return 1; }
    slurm_pids+=("$(cat "$folder/munge/pid")")
    slurmctld -D -f "$SLURM_CONF" >"$folder/log/ctld.out" 2>&1 &
    slurm_pids+=($!)
    slurmd -D -f "$SLURM_CONF" -N "$host" >"$folder/log/slurmd.out" 2>&1 &
    slurm_pids+=($!)
    for i in $(seq 100); do
        sinfo -h -o %T 2>/dev/null | grep -q idle && return 0
        kill -0 "${slurm_pids[1]}" 2>/dev/null && kill -0 "${slurm_pids[2]}" 2>/dev/null ||
            { slurm_reason="$(cat "$folder"/log/*.out "$folder"/log/*.log | grep -iE "error|fatal" | tail -n 1)"; return 1; }
        sleep 0.2
    done
    slurm_reason="no idle node after 20 s: $(grep -i error "$folder"/log/*.log | tail -n 1)"
    return 1
}

slurm_stop() {
    local pid
    command -v scancel >/dev/null && [ ${#slurm_pids[@]} = 3 ] && timeout 5 scancel -u root 2>/dev/null
    for pid in "${slurm_pids[@]}"; do kill "$pid" 2>/dev/null; done
    for pid in "${slurm_pids[@]}"; do
        for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null
    done
    slurm_pids=()
}
