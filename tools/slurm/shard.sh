# shard.sh - one shard of a run as a task of a job array. `./harness slurm` writes the lines in front of this one: harness,
# shards, folder and the array run with the flags of the run.
#
# Before its time limit the cluster sends SIGUSR1, before it takes the node away SIGTERM: the harness stores what is
# finished and ends with 130. After SIGUSR1 the task asks to be queued again; what is stored is not computed twice.
number=$SLURM_ARRAY_TASK_ID
signal=
"$harness" "${run[@]}" --shard "$number/$shards" --db "$folder/$number.db" --quiet &
child=$!
trap 'signal=USR1; kill -USR1 $child 2>/dev/null' USR1
trap 'signal=TERM; kill -TERM $child 2>/dev/null' TERM
while :; do
    wait $child; code=$?
    # Above 128 it may be the trap that ended the wait, not the harness.
    [ $code -gt 128 ] && kill -0 $child 2>/dev/null || break
done
echo "$(date -u +%FT%TZ) shard $number of $shards: exit code $code${signal:+ after SIG$signal}"
if [ "$signal" = USR1 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$number"
fi
exit $code
