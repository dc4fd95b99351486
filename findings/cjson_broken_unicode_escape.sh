#!/usr/bin/env bash
# cJSON 1.7.15 (Debian 12's libcjson1) accepts a \u that four hexadecimal digits do not follow. It takes the escape for
# U+0000, so the C string ends there: {"a": "x\uzzzzy"} is parsed without an error, and "a" is "x". JSON (RFC 8259) has no
# such escape, and Python's json module raises JSONDecodeError. A valid \u0000 ends the text in the same way; half of a
# surrogate pair, which Python reads, is an error. A reader that wants what Python gives has to look at the escapes itself.
#
# Run without this repository. Exit status 0: cJSON still behaves so; 1: it does not.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
apt-get download libcjson1 libcjson-dev >/dev/null 2>&1 || { echo "apt-get cannot download libcjson1 and libcjson-dev"; exit 2; }
for package in *.deb; do dpkg -x "$package" root; done
library=$(dirname "$(find root -name 'libcjson.so' | head -n 1)")
cat > read.c <<'C'
#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv)
{
    printf("cJSON %s\n", cJSON_Version());
    for (int i = 1; i < argc; i++) {
        cJSON *root = cJSON_Parse(argv[i]), *a = cJSON_GetObjectItemCaseSensitive(root, "a");
        printf("%s: ", argv[i]);
        if (cJSON_IsString(a))
            printf("\"%s\", %zu bytes\n", a->valuestring, strlen(a->valuestring));
        else
            printf("refused\n");
        cJSON_Delete(root);
    }
    return 0;
}
C
cc -I root/usr/include read.c -L "$library" -lcjson -o read
texts=('{"a": "x\uzzzzy"}' '{"a": "x\u00zzy"}' '{"a": "x\u0000y"}' '{"a": "\ud800"}')
LD_LIBRARY_PATH=$library ./read "${texts[@]}" | tee seen
for text in "${texts[@]}"; do
    python3 -c 'import json, sys
try: print(sys.argv[1] + ": Python reads", ascii(json.loads(sys.argv[1])["a"]))
except json.JSONDecodeError as e: print(sys.argv[1] + ": Python refuses:", e)' "$text"
done
# What was seen with 1.7.15 on 2026-11-30.
tail -n +2 seen > lines
diff lines - <<'SEEN'
{"a": "x\uzzzzy"}: "x", 1 bytes
{"a": "x\u00zzy"}: "x", 1 bytes
{"a": "x\u0000y"}: "x", 1 bytes
{"a": "\ud800"}: refused
SEEN
