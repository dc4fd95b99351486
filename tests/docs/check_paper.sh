#!/usr/bin/env bash
# paper/: two tables run from end to end on the embedded model, into a scratch folder; every query reads the views;
# every printed number belongs to a table, has a source and says how it was read.
. "$(dirname "$0")/../driver/lib.sh"
for table in recall needles; do
    ./harness --config paper/tiny/$table.json --quiet --db "$scratch/$table.db" >"$scratch/log" 2>&1 || { fail "paper/tiny/$table.json"; tail -3 "$scratch/log"; }
    bash paper/compare.sh $table "$scratch/$table.db" >"$scratch/$table.md" || fail "compare.sh $table"
done
grep -qE '^\| index recall, mage k=64 \| [0-9.]+ \| - ' "$scratch/recall.md" || { fail "recall has no row of mage"; cat "$scratch/recall.md"; }
grep -qE '^\| index recall, mage k=512 \| not measured \| 83.8 % \| - \| MAGE v1' "$scratch/recall.md" || fail "a printed number is lost"
grep -qE '^\| score at 512, mage k=64 \| [0-9.]+ ' "$scratch/needles.md" || { fail "needles has no row of mage"; cat "$scratch/needles.md"; }
# A measured key that is printed shows both and their difference.
sed 's/mage k=512\t83.8/mage k=64\t50/' paper/printed.tsv >"$scratch/printed.tsv"
mkdir "$scratch/copy" && cp paper/*.sql paper/compare.sh "$scratch/copy" && cp "$scratch/printed.tsv" "$scratch/copy"
bash "$scratch/copy/compare.sh" recall "$scratch/recall.db" | grep -qE '^\| index recall, mage k=64 \| [0-9.]+ \| 50 % \| [+-][0-9.]+ \| MAGE v1' ||
    fail "no difference to a printed number"
for query in paper/*.sql; do
    table=$(basename "$query" .sql)
    sqlite3 -readonly "$scratch/recall.db" <"$query" >/dev/null || fail "$query does not run"
    for file in "paper/$table.json" "paper/tiny/$table.json"; do
        [ -f "$file" ] || fail "$file is missing"
        rc=0; ./harness --config "$file" --dry-run --db "$scratch/none.db" >"$scratch/log" 2>&1 || rc=$?
        # What this machine lacks is all that may be wrong: a checkpoint, data, memory.
        [ $rc = 0 ] || grep -qE 'checkpoints/|datasets/data|cannot fit' "$scratch/log" || { fail "$file"; tail -2 "$scratch/log"; }
    done
    grep -q "^| \`$table\` |" paper/README.md || fail "paper/README.md lacks $table"
done
awk -F'\t' '/^#/ { next } NF != 7 || $5 == "" || ($6 != "read" && $6 != "retold") || $7 == "" { print "printed.tsv:" NR; bad = 1 } END { exit bad }' \
    paper/printed.tsv || fail "a line of printed.tsv lacks its source, or how it was read"
exit $((failures > 0))
