# merge.sh - the shards of a run become its database, when the job array has ended. `./harness slurm` writes the lines in
# front of this one: harness, folder and result.
set -e
"$harness" merge "$result" "$folder"/*.db
"$harness" report "$result"
