#!/usr/bin/env bash
# Plug-ins that crash, hang, leave, or hand over a bad index, all beside sound methods in one run: each fails only its
# own cells, with method, layer and step in the stored reason. MASKBENCH_TEST_DEVICE=cuda runs it on a
# GPU, with plug-ins that break the device itself added.
. "$(dirname "$0")/../driver/lib.sh"
plugins=${BUILD:-build}/plugins
device=${MASKBENCH_TEST_DEVICE:-cpu}
export MASKBENCH_PLUGIN_PATH=$plugins/isolation:$plugins
run="./harness --config tests/isolation/run.json --device $device --quiet --out"
names=$(cd tests/isolation/plugins && ls -- *.c)
if [ "$device" != cpu ]; then
    MASKBENCH_PLUGIN_PATH=$MASKBENCH_PLUGIN_PATH:$plugins/isolation/gpu
    gpu=(--set 'methods.bad_fault={}' --set 'methods.bad_spin={}')
    names="$names fault.c spin.c"
fi
query() { sqlite3 -readonly "$1" "$2"; }

# Without them, then with them: the rows of the others are the same, byte for byte.
expect_exit 0 '' $run "" --db "$scratch/alone.db" --methods exact,window
expect_exit 3 'samples failed' $run "" --db "$scratch/all.db" ${gpu[@]+"${gpu[@]}"}
[ -z "$(pgrep -s 0 -f '^harness worker')" ] || fail "a worker is left over"
others='SELECT method, pass, item, status, prediction, score, work, new_tokens, dense_calls, sparse_calls FROM v_samples
        WHERE method IN ("exact", "window") ORDER BY 1, 2, 3'
query "$scratch/alone.db" "${others//\"/\'}" >"$scratch/rows_alone"
query "$scratch/all.db" "${others//\"/\'}" >"$scratch/rows_all"
[ "$(wc -l <"$scratch/rows_alone")" = 10 ] || fail "$(wc -l <"$scratch/rows_alone") rows of exact and window, not 10"
diff "$scratch/rows_alone" "$scratch/rows_all" || fail "bad plug-ins changed the rows of others"

# A plug-in that keeps every key is the exact method at all later steps: what comes through the pipe is a real result.
[ "$(query "$scratch/all.db" "SELECT count(*) FROM v_samples a JOIN v_samples b USING (pass, item, prediction, score, new_tokens)
    WHERE a.method = 'exact' AND b.method = 'example' AND a.status = 'ok' AND b.status = 'ok'")" = 4 ] ||
    fail "the sound plug-in differs from exact attention"
[ "$(query "$scratch/all.db" "SELECT count(*) FROM v_samples WHERE method = 'example' AND status = 'ok'")" = 6 ] ||
    fail "rows of the sound plug-in are missing"

# Every sample of every bad one failed, in all three passes, and says where.
bad=$(wc -w <<<"$names")
[ "$(query "$scratch/all.db" "SELECT count(*) FROM v_failures WHERE what = 'sample' AND method LIKE 'bad_%'")" = $((bad * 6)) ] ||
    fail "not every sample of the $bad bad plug-ins is stored as failed"
[ "$(query "$scratch/all.db" "SELECT count(*) FROM v_samples WHERE method LIKE 'bad_%' AND status <> 'failed'")" = 0 ] ||
    fail "a bad plug-in has a result"
cat >"$scratch/expected" <<'LIST'
segfault crashed in select\(\), layer 3, block 0, step 2: signal 11
abort failed in select\(\), layer 3, block 0, step 2: it called abort\(134\)
leave failed in select\(\), layer 3, block 0, step 2: it called exit\(0\)
hang did not come back for 2 s in select\(\), layer 3, block 0, step 2
range layer 3, block 0, step 2: page 2139062143 of KV head 0 lies outside the prefix
negative layer 3, block 0, step 2: page -1 of KV head 0 lies outside the prefix
duplicate layer 3, block 0, step 2: page [0-9]+ of KV head 0 comes twice
descend layer 3, block 0, step 2: page [0-9]+ of KV head 0 does not ascend
budget layer 3, block 0, step 2: 2 KV heads select 256 pages of 1 tokens, k = 64 allows 128
capacity layer 3, block 0, step 2: KV head 0 selects 16843009 pages, its index holds 128
behind layer 3, block 0, step 2: it wrote behind the end of its index
wild crashed in select\(\), layer 3, block 0, step 2: signal (11|7)
nan layer 3, block 0, step 2: attend\(\) gave an output that is not finite
open crashed in open\(\): signal 11
close cut its process off in select\(\), layer 3, block 0, step 2 and did not come back for 5 s
LIST
[ "$device" = cpu ] || cat >>"$scratch/expected" <<'LIST'
fault broke its process after select\(\), layer 3, block 0, step 2: .*CUDA: .*illegal memory access
spin did not come back for 2 s after select\(\), layer 3, block 0, step 2
LIST
while read -r name pattern; do
    n=$(query "$scratch/all.db" "SELECT reason FROM v_failures WHERE what = 'sample' AND method = 'bad_$name'" |
        grep -E "bad_$name" | grep -cE "$pattern")
    [ "$n" = 6 ] || { fail "bad_$name: $n of 6 reasons are like /$pattern/"
                      query "$scratch/all.db" "SELECT DISTINCT reason FROM v_failures WHERE method = 'bad_$name'"; }
done <"$scratch/expected"

# The same command again tries the failed ones again, is done, and leaves the same content behind.
cp "$scratch/all.db" "$scratch/before.db"
expect_exit 3 'samples failed' $run "" --db "$scratch/all.db" ${gpu[@]+"${gpu[@]}"}
same_content "$scratch/before.db" "$scratch/all.db"

# The latency pass times in process, after a rehearsal in a worker: the bad ones are failed cells, the others are timed.
expect_exit 3 'samples failed' $run "" --db "$scratch/time.db" --methods exact,example,bad_segfault,bad_range,bad_open \
    --set 'passes=["latency"]' --set 'latency={"contexts": [256], "steps": [4], "blocks_max": 2, "seconds": 0.1}'
[ "$(query "$scratch/time.db" "SELECT group_concat(method) FROM (SELECT DISTINCT method FROM v_latency ORDER BY 1)")" = exact,example ] ||
    fail "the latency pass timed others than exact and example"
query "$scratch/time.db" "SELECT method, reason FROM v_failures WHERE pass = 'latency' AND status = 'failed' ORDER BY 1" >"$scratch/reasons"
[ "$(grep -cE '^bad_(open.*in open|range.*layer 3, block 0, step 2.*outside|segfault.*in select.., layer 3, block 0, step 2)' "$scratch/reasons")" = 3 ] ||
    { fail "reasons of the latency cells"; cat "$scratch/reasons"; }


# A worker is started by a run and by nobody else.
expect_exit 2 'has no use by itself' ./harness worker
exit $((failures > 0))
