# Completes a release on a sprite: checks what was uploaded, copies the plugin's own files from the release that
# was used last, and moves it into place. Given on standard input: the listing of the release, then the SHA-256
# of its files, each with its path, in the order of the listing; both in records that end with a NUL.
#
# Exit 65: the files are not as they were sent, and have been removed. Exit 66: the plugin's own files are over a
# limit. Exit 67: the connection ended too soon. No path is ever read as code, as an option or as a pattern.
#
# Needs bash 4.4 and GNU's coreutils, findutils and tar.
shift
set -euo pipefail
# The last command of a pipeline runs in this shell: bash now and then loses the status of what is read through
# `< <(command)`, so that `wait $!` fails for nothing.
shopt -s nullglob dotglob lastpipe
export LC_ALL=C
umask 022
base=$1 sha=$2 listing_size=$3 sums_size=$4 most_files=$5 most_bytes=$6 most_memory=$7 kept=$8
releases=$base/releases release=$base/releases/$sha staging=$base/staging-$sha work=$base/staging-work
# Levels of directories; and bytes of a path, which the system's tools have to be given whole.
most_depth=256 most_path=3500

nul() { (($# == 0)) || printf '%s\0' "$@"; }

# A link is removed itself. What the plugin made read-only is removed too.
remove() {
    [[ -L $1 || ! -d $1 ]] || chmod -R u+rwX -- "$1"
    rm -rf -- "$1"
}

# What the service writes was seen to belong to another user than the one that programs run as.
if ((EUID != 0)); then
    [[ -O $base ]] || sudo -n chown -h -- "$EUID" "$base"
    if [[ -d $staging && $(find "$staging" ! -uid "$EUID" -printf x -quit 2>/dev/null) ]]; then
        sudo -n chown -hR -- "$EUID" "$staging"
    fi
fi
for dir in "$releases" "$staging" "$base/data"; do
    [[ ! -L $dir ]] || rm -- "$dir"
    mkdir -p -- "$dir"
done
remove "$work"
mkdir -- "$work"
head -c "$listing_size" >"$work/complete"
cat >"$work/sums"
[[ $(stat -c %s -- "$work/complete" "$work/sums") == "$listing_size"$'\n'"$sums_size" ]] || exit 67

# Keys begin with a slash: there is one for the empty path then, and none is special to the shell.
declare -A new=(['/.complete']=f)
paths=() dirs=()
mapfile -d '' -t records <"$work/complete"
title=${records[0]}
for record in "${records[@]:3}"; do
    case $record in
    'd '*)
        path=${record#d }
        new["/$path"]=d
        dirs+=("./$path")
        ;;
    *)
        path=${record#f * * } mode=${record#f }
        new["/$path"]=f
        paths+=("./$path")
        printf '%s\0' "./$path" >>"$work/mode-${mode%% *}"
        ;;
    esac
done

# Whatever an attempt before this one has left that is not a file of the package.
cd -- "$staging"
find . -type d ! -perm -u=rwx -exec chmod u+rwx -- {} \;
find . -type f ! -perm -u=rw -exec chmod u+rw -- {} +
find . -mindepth 1 -printf '%y %P\0' | mapfile -d '' -t found
for entry in "${found[@]}"; do
    path=${entry#* }
    if [[ $path == .complete || ${new["/$path"]-} != "${entry%% *}" ]]; then
        remove "./$path"
    fi
done
if ! nul "${paths[@]}" | xargs -0 -r sha256sum -z -- | cmp -s - "$work/sums"; then
    cd -- "$base"
    remove "$staging"
    remove "$work"
    exit 65
fi
nul "${dirs[@]}" | xargs -0 -r mkdir -p --

previous='' from=''
if [[ -f $base/current && ! -L $base/current ]]; then
    previous=$(head -c 64 -- "$base/current" | tr -d '\0')
    [[ $previous =~ ^[0-9a-f]{64}$ ]] || previous=
fi
if [[ $previous ]]; then
    # The second is there if an attempt ended while it replaced the first.
    for dir in "$releases/$previous" "$releases/$previous.replaced"; do
        if [[ -z $from && -d $dir && ! -L $dir ]]; then from=$dir; fi
    done
fi

declare -A old=() blocked=() modes=() making=()
makes=() copies=() copied_files=() left=()
files=0 bytes=0 memory=0

read_old_listing() {
    local record path
    [[ -f $from/.complete && ! -L $from/.complete && -r $from/.complete ]] || return 0
    (($(stat -c %s -- "$from/.complete") <= 16777216)) || return 0
    mapfile -d '' -t -n 200000 records <"$from/.complete"
    # If it is damaged, everything is the plugin's own.
    [[ ${records[0]-} == "$title" && ${records[2]-} == $((${#records[@]} - 3)) ]] || return 0
    for record in "${records[@]:3}"; do
        [[ $record == 'f '* ]] || continue
        path=${record#f * * }
        old["/$path"]=f
        while [[ $path == */* ]]; do
            path=${path%/*}
            [[ -z ${old["/$path"]-} ]] || break
            old["/$path"]=d
        done
    done
}

# Has a directory of the old release made, and those above it first.
need() {
    [[ $1 && -z ${new["/$1"]-} && -z ${making["/$1"]-} ]] || return 0
    if [[ $1 == */* ]]; then need "${1%/*}"; fi
    making["/$1"]=1
    makes+=("./$1")
}

over_limit() {
    printf '%s %s %s\n' "$1" "$files" "$bytes"
    exit 66
}

# Takes one thing of the old release: its kind, depth, size, mode and path.
take() {
    local kind=$1 path=$5 above='' own=1
    if [[ $path == */* ]]; then above=${path%/*}; fi
    if [[ $kind == d ]]; then
        modes["/$path"]=$4
        [[ ${old["/$path"]-} != d ]] || own=
    elif [[ $path == .complete || ${old["/$path"]-} == f ]]; then
        return 0
    fi
    files=$((files + ${own:-0})) memory=$((memory + ${#path} + 64))
    if [[ $kind == f ]]; then bytes=$((bytes + $3)); fi
    ((files <= most_files && bytes <= most_bytes)) || over_limit files
    ((memory <= most_memory)) || over_limit paths
    case $kind in
    d) [[ -r $path && -x $path ]] && (($2 <= most_depth && ${#path} <= most_path)) ;;
    f) [[ -r $path ]] && ((${#path} <= most_path)) ;;
    l) ((${#path} <= most_path)) ;;
    *) false ;;
    esac || { left+=("$path") && return 0; }
    if [[ ${blocked["/$above"]-} || ($kind == d && ${new["/$path"]-} == f) || ($kind != d && ${new["/$path"]-}) ]]; then
        [[ -z $own ]] || left+=("$path")
        if [[ $kind == d ]]; then blocked["/$path"]=1; fi
        return 0
    fi
    [[ $own ]] || return 0
    if [[ $kind == d ]]; then
        need "$path"
        return 0
    fi
    need "$above"
    copies+=("./$path")
    if [[ $kind == f ]]; then copied_files+=("./$path"); fi
}

if [[ $from ]]; then
    chmod u+rwx -- "$from"
    read_old_listing
    cd -- "$from"
    find . -mindepth 1 -maxdepth $((most_depth + 1)) -printf '%y %d %s %m %P\0' \
        -type d ! \( -readable -executable \) -prune |
        while IFS= read -r -d '' entry; do
            fields=()
            for _ in 1 2 3 4; do
                fields+=("${entry%% *}")
                entry=${entry#* }
            done
            take "${fields[@]}" "$entry"
        done
    cd -- "$staging"
    nul "${makes[@]}" | xargs -0 -r mkdir --
    if ((${#copies[@]})); then
        nul "${copies[@]}" >"$work/copies"
        tar -C "$from" --format=posix --no-recursion --null -T "$work/copies" -cf - |
            tar --no-same-owner -xpf -
        nul "${copied_files[@]}" | xargs -0 -r chmod a-st,go-w --
    fi
fi

find . -type f -print0 | xargs -0 -r sync --
for modes_of in "$work"/mode-*; do
    xargs -0 chmod "${modes_of##*-}" -- <"$modes_of"
done
# The deepest first: one may become unreachable.
for ((at = ${#makes[@]} - 1; at >= 0; at--)); do
    path=${makes[at]#./}
    mode=${modes["/$path"]}
    mode=$((8#$mode & 8#755))
    ((mode == 8#755)) || chmod "$(printf '%05o' "$mode")" -- "${makes[at]}"
done
nul . "${dirs[@]}" | xargs -0 chmod 00755 --
sync -- "$work/complete"
mv -T -- "$work/complete" .complete

cd -- "$base"
if [[ -e $release || -L $release ]]; then
    remove "$release.replaced"
    mv -T -- "$release" "$release.replaced"
fi
mv -T -- "$staging" "$release"
[[ -f current && ! -L current ]] || remove ./current
printf '%s\n' "$sha" >"$work/current"
sync -- "$work/current"
mv -T -- "$work/current" current
sync -- "$releases" "$base"

# What is left where it cannot be removed does no harm.
for dir in "$releases"/* "$base"/staging-*; do
    case ${dir##*/} in
    "$sha" | "$previous") ;;
    *.replaced | staging-*) remove "$dir" || : ;;
    # Where a release takes its own place, the one that was used before it is not known.
    *) [[ $previous == "$sha" || " $kept " == *" ${dir##*/} "* ]] || remove "$dir" || : ;;
    esac
done
printf '%s %s %s\n' "${#copies[@]}" "$bytes" "${#left[@]}"
for path in "${left[@]:0:20}"; do printf '%q\n' "$path"; done
