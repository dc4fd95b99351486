#!/usr/bin/env bash
# Downloads benchmark files into datasets/data/ - only the sets that are named, only when a person runs it.
#
#   bash datasets/fetch.sh --list
#   bash datasets/fetch.sh [--dry-run] [--dir DIR] NAME...
#
# Says what each set is, its size and its licence before anything is downloaded. A broken download goes on where it
# stopped; a file whose SHA-256 is not the one in sources.tsv is refused and set aside. Where sources.tsv has no
# checksum, the first download's is written to DIR/checksums.txt and later ones must equal it.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
sources=${MASKBENCH_SOURCES:-$here/sources.tsv}   # another table, for a mirror or a test
folder=$here/data
dry=0
names=()

fail() {
    echo "fetch.sh: $*" >&2
    exit 2
}

# mega BYTES: a size for people; "size unknown" for -
mega() {
    if [ "$1" = - ]; then echo "size unknown"
    elif [ "$1" -lt 1000000 ]; then echo "$((($1 + 999) / 1000)) kB"
    else echo "$((($1 + 500000) / 1000000)) MB"; fi
}

# set_bytes NAME: sum of the known sizes, with a + where one is unknown
describe() {
    local name=$1 kind set_name what licence bytes=0 files=0 more=""
    while IFS=$'\t' read -r kind set_name _ size _; do
        if [ "$kind" = file ] && [ "$set_name" = "$name" ]; then
            files=$((files + 1))
            if [ "$size" = - ]; then more=", plus files of unknown size"; else bytes=$((bytes + size)); fi
        fi
    done <"$sources"
    while IFS=$'\t' read -r kind set_name what licence; do
        if [ "$kind" = set ] && [ "$set_name" = "$name" ]; then
            echo "$name: $what"
            echo "    $files file(s), $(mega "$bytes") to download$more; licence: $licence"
            return 0
        fi
    done <"$sources"
    return 1
}

all_names() {
    awk -F'\t' '$1 == "set" { print $2 }' "$sources"
}

sum_of() {
    sha256sum "$1" | cut -d' ' -f1
}

# download URL FILE: into FILE.part, from where an earlier try stopped
download() {
    local url=$1 part=$2.part rc=0
    curl -fL --retry 3 --retry-delay 2 --connect-timeout 30 -C - -o "$part" "$url" || rc=$?
    if [ "$rc" = 33 ] || [ "$rc" = 36 ]; then   # the server cannot resume
        echo "    the server cannot resume; starting again"
        rm -f "$part"
        rc=0
        curl -fL --retry 3 --retry-delay 2 --connect-timeout 30 -o "$part" "$url" || rc=$?
    fi
    [ "$rc" = 0 ] || fail "the download of $url failed (curl exit code $rc); run the same command again to go on"
}

# check FILE NAME SHA256: 0 when the file is the right one
check() {
    local file=$1 name=$2 want=$3 got recorded=""
    got=$(sum_of "$file")
    if [ "$want" != - ]; then
        [ "$got" = "$want" ] && return 0
        echo "    $name has SHA-256 $got, expected $want" >&2
        return 1
    fi
    if [ -f "$folder/checksums.txt" ]; then
        recorded=$(awk -v n="$name" '$2 == n { print $1 }' "$folder/checksums.txt" | tail -n 1)
    fi
    if [ -z "$recorded" ]; then
        echo "$got  $name" >>"$folder/checksums.txt"
        echo "    no checksum is known for $name; recorded $got in $folder/checksums.txt"
    elif [ "$got" != "$recorded" ]; then
        echo "    $name has SHA-256 $got, recorded was $recorded" >&2
        return 1
    fi
}

unpack() {
    local file=$1 how=$2 target=$3
    mkdir -p "$target"
    case $how in
    zip)
        if command -v unzip >/dev/null; then unzip -q -o "$file" -d "$target"
        elif command -v bsdtar >/dev/null; then bsdtar -xf "$file" -C "$target"
        elif command -v python3 >/dev/null; then python3 -m zipfile -e "$file" "$target"
        else fail "unpacking $file needs unzip: apt-get install unzip"; fi ;;
    tar) tar -xf "$file" -C "$target" --strip-components=1 ;;
    *) fail "$sources: unknown way to unpack: $how" ;;
    esac
}

# one file of a set; an archive is removed once it is unpacked and a mark with its checksum stays
fetch_file() {
    local name=$1 path=$2 size=$3 want=$4 how=$5 url=$6
    local file=$folder/$name/$path mark
    mark=$folder/$name/.$(basename "$path").unpacked
    if [ "$how" != - ] && [ -f "$mark" ] && { [ "$want" = - ] || [ "$(cat "$mark")" = "$want" ]; }; then
        echo "  $name/$path: unpacked already"
        return
    fi
    if [ -f "$file" ] && check "$file" "$name/$path" "$want" 2>/dev/null; then
        echo "  $name/$path: here already"
    elif [ "$dry" = 1 ]; then
        echo "  $name/$path: would download $url ($(mega "$size"))"
        return
    else
        echo "  $name/$path: $url ($(mega "$size"))"
        mkdir -p "$(dirname "$file")"
        # A part that is whole already needs no request: servers answer one for nothing with an error.
        if [ ! -f "$file.part" ] || { [ "$(sum_of "$file.part")" != "$want" ] &&
            { [ "$size" = - ] || [ "$(stat -c %s "$file.part")" -lt "$size" ]; }; }; then
            download "$url" "$file"
        fi
        if ! check "$file.part" "$name/$path" "$want"; then
            mv -f "$file.part" "$file.refused"
            fail "$name/$path is not the expected file; it was set aside as $file.refused"
        fi
        mv -f "$file.part" "$file"
    fi
    if [ "$how" != - ]; then
        if [ "$dry" = 1 ]; then
            echo "  $name/$path: would unpack it"
            return
        fi
        unpack "$file" "${how%%:*}" "$folder/$name/${how#*:}"
        sum_of "$file" >"$mark"
        rm -f "$file"
    fi
}

while [ $# -gt 0 ]; do
    case $1 in
    --list)
        for name in $(all_names); do describe "$name"; done
        exit 0 ;;
    --dry-run) dry=1 ;;
    --dir)
        [ $# -ge 2 ] || fail "--dir needs a folder"
        folder=$2
        shift ;;
    -h | --help)
        sed -n '2,9p' "$0" | sed 's/^# \{0,1\}//'
        exit 0 ;;
    -*) fail "unknown flag $1; --list shows the sets" ;;
    *) names+=("$1") ;;
    esac
    shift
done
[ -r "$sources" ] || fail "$sources cannot be read"
[ ${#names[@]} -gt 0 ] || fail "name at least one set; --list shows them"
for name in "${names[@]}"; do
    all_names | grep -qx -- "$name" || fail "no set is named $name; there are: $(all_names | tr '\n' ' ')"
done
command -v curl >/dev/null || fail "curl is needed: apt-get install curl"
for name in "${names[@]}"; do describe "$name"; done
echo "into $folder"
[ "$dry" = 1 ] || mkdir -p "$folder"
for name in "${names[@]}"; do
    while IFS=$'\t' read -r kind set_name path size sum how url; do
        if [ "$kind" = file ] && [ "$set_name" = "$name" ]; then
            fetch_file "$name" "$path" "$size" "$sum" "$how" "$url"
        fi
    done <"$sources"
done
echo "done"
