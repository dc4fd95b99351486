#!/usr/bin/env bash
# Chat templates beside transformers: every template of tests/model/templates/ and of $MASKBENCH_TEMPLATES (folders or
# files, separated by ":"), with many conversations; token ids of prompts of models/tiny. Needs python3 with
# transformers 5.x and jinja2 ($PYTHON names another interpreter); skipped where it has none.
set -u
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
program=${BUILD:-build}/tests/model/test_template
"$python" -c 'import transformers, jinja2' 2>/dev/null || { echo "skipped: $python has no transformers and jinja2"; exit 0; }
[ -x "$program" ] || { echo "build $program first"; exit 1; }
IFS=: read -ra extra <<<"${MASKBENCH_TEMPLATES:-}"
"$python" tests/model/templates.py --ids ./harness || exit 1
exec "$python" tests/model/templates.py "$program" ${extra[@]+"${extra[@]}"}
