#!/usr/bin/env bash
# paper/: two tables run from end to end on the embedded model, into a scratch folder, a third one by the command as it
# is printed, training first; every query reads the views; every printed number belongs to a table, has a source and says how
# it was read; every config says what it needs.
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
# The command itself, in a copy of what it needs: it trains a model, runs both and renders.
mkdir "$scratch/tree" && cp -R paper "$scratch/tree" && ln -s "$PWD/harness" "$PWD/models" "$PWD/datasets" "$scratch/tree"
make -s -C "$scratch/tree/paper" finetune TINY=1 >"$scratch/log" 2>&1 || { fail "make -C paper finetune TINY=1"; tail -3 "$scratch/log"; }
for row in '^| tiny, score on average, exact | [0-9.]+ ' '^| paper_finetune_tiny_model, score on average, mage k=64[^|]* | [0-9.]+ ' \
           '^| tasks at least as good as exact before, mage k=64[^|]* | [01] ' '^| tasks [^|]*mage k=1024[^|]* | not measured | 4 tasks '; do
    grep -qE "${row//|/\\|}" "$scratch/tree/results/paper_finetune_tiny.md" || { fail "finetune lacks $row"; cat "$scratch/log"; }
done
[ "$(make -s -C paper help)" = "tables: $(cd paper && ls ./*.sql | sed 's|./||; s|\.sql||' | tr '\n' ' ' | sed 's/ $//')" ] || fail "make -C paper help"
for query in paper/*.sql; do
    table=$(basename "$query" .sql)
    sqlite3 -readonly "$scratch/recall.db" <"$query" >/dev/null || fail "$query does not run"
    sed -n 2,3p "paper/$table.json" | tr '\n' ' ' | grep -qE '// checkpoints?: .*; data: .* at most [0-9.]+ h .*(GiB|GPU)' ||
        fail "paper/$table.json does not say what it needs"
    for file in "paper/$table.json" "paper/tiny/$table.json"; do
        [ -f "$file" ] || fail "$file is missing"
        rc=0; (cd "$scratch/tree" && ./harness --config "$file" --dry-run --db "$scratch/none.db") >"$scratch/log" 2>&1 || rc=$?
        # What this machine lacks is all that may be wrong: a checkpoint, data, memory. The tree has the trained model.
        [ $rc = 0 ] || grep -qE 'checkpoints/|datasets/data|cannot fit' "$scratch/log" || { fail "$file"; tail -2 "$scratch/log"; }
    done
    grep -q "^| \`$table\` |" paper/README.md || fail "paper/README.md lacks $table"
done
awk -F'\t' '/^#/ { next } NF != 7 || $5 == "" || ($6 != "read" && $6 != "retold") || $7 == "" { print "printed.tsv:" NR; bad = 1 } END { exit bad }' \
    paper/printed.tsv || fail "a line of printed.tsv lacks its source, or how it was read"
exit $((failures > 0))
