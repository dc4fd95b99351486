#!/usr/bin/env bash
# compare.sh TABLE DB - what a run measured for a table beside what the papers print, as Markdown on standard output:
# measured, printed, difference, source, and why the two may differ. Needs sqlite3.
set -euo pipefail
cd "$(dirname "$0")"
table=${1:?usage: compare.sh TABLE DB} db=${2:?usage: compare.sh TABLE DB}
[ -f "$table.sql" ] || { echo "compare.sh: there is no table $table: $(ls ./*.sql | sed 's|./||; s|\.sql||' | tr '\n' ' ')" >&2; exit 2; }
[ -f "$db" ] || { echo "compare.sh: there is no database $db" >&2; exit 2; }
rows=$(sqlite3 -readonly -batch -separator $'\t' "$db" <"$table.sql")
printf '| %s | measured | printed | difference | source | why it may differ |\n|---|---:|---:|---:|---|---|\n' "$table"
awk -F'\t' -v table="$table" '
    NR == FNR { if ($1 == table) { printed[$2] = $3; unit[$2] = $4; source[$2] = $5 " (" $6 ")"; why[$2] = $7; order[++count] = $2 } next }
    $1 == "" { next }
    {
        seen[$1] = 1
        if ($1 in printed)
            printf "| %s | %s | %s %s | %+.2f | %s | %s |\n", $1, $2, printed[$1], unit[$1], $2 - printed[$1], source[$1], why[$1]
        else
            printf "| %s | %s | - | - | no number of the papers was read for it | |\n", $1, $2
    }
    END {
        for (i = 1; i <= count; i++)
            if (!(order[i] in seen))
                printf "| %s | not measured | %s %s | - | %s | %s |\n", order[i], printed[order[i]], unit[order[i]], source[order[i]], why[order[i]]
    }' printed.tsv <(printf '%s\n' "$rows")
