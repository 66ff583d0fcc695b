# Shared by test/all, test/demo and test/bench/run; sourced.  Expects $top.

# The server to build against: Debian's of this version, or another's pg_config.
pg_version=${INGEST_PG_VERSION:-15}
export PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/$pg_version/bin/pg_config}

server_packages=("postgresql-$pg_version" "postgresql-server-dev-$pg_version" librdkafka-dev libcurl4-openssl-dev libssl-dev libxml2-dev gcc make pkg-config)
test_packages=(libipc-run-perl kcat openssl nginx-light maven default-jre-headless clang libclang-rt-dev llvm python3 python3-venv mariadb-server "postgresql-$pg_version-mysql-fdw")

log() { printf '# %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Install those of the packages that are missing, as root.
install_packages() {
    local missing=() package file created=() failed=''
    for package; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || die "missing packages: ${missing[*]} (run as root to install them)"
    log "installing ${missing[*]}"
    # The packages must not make and start servers of their own.
    for file in /etc/postgresql-common/createcluster.conf /usr/sbin/policy-rc.d; do
        [ ! -e $file ] || continue
        created+=("$file")
        mkdir -p "${file%/*}"
        case $file in
            *.conf) echo 'create_main_cluster = false' > $file ;;
            *) printf '#!/bin/sh\nexit 101\n' > $file; chmod 755 $file ;;
        esac
    done
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || failed=update
    [ -n "$failed" ] ||
        apt-get install -y -qq --no-install-recommends "${missing[@]}" > "${TMPDIR:-/tmp}/ingest-apt.$$" 2>&1 ||
        { cat "${TMPDIR:-/tmp}/ingest-apt.$$" >&2; failed=install; }
    rm -f "${TMPDIR:-/tmp}/ingest-apt.$$" ${created[@]+"${created[@]}"}
    [ -z "$failed" ] || die "apt-get $failed failed"
}

# make_work_dir NAME: sets $work to a directory that the unprivileged user can
# work in; it goes when the script ends.
make_work_dir() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXX")
    chmod 755 "$work"
    [ "$(id -u)" != 0 ] || chown postgres: "$work"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# build_and_install DIR [VAR=value ...]: the checkout is copied, so that it may
# be read-only or root's, and nothing is built into it.
build_and_install() {
    local dir=$1
    shift
    mkdir -p "$dir"
    tar -C "$top" --exclude=.git --exclude='*.o' --exclude='*.bc' --exclude='*.so' -cf - . | tar -C "$dir" -xf - --no-same-owner
    make -s -C "$dir" -j"$(nproc)" "$@" > "$dir/build.log" 2>&1 ||
        { cat "$dir/build.log" >&2; die 'the build failed'; }
    install_built "$dir" "$@"
    [ "$(id -u)" != 0 ] || chown -R postgres: "$dir"
}

install_built() {
    local dir=$1 sudo=
    shift
    [ -w "$("$PG_CONFIG" --pkglibdir)" ] || sudo=sudo
    $sudo make -s -C "$dir" PG_CONFIG="$PG_CONFIG" "$@" install >> "$dir/build.log" 2>&1 ||
        { cat "$dir/build.log" >&2; die 'the installation failed'; }
}

# A library to preload next to a sanitizer's: says why itself.
make_nogettext() {
    ${CC:-cc} -fno-builtin -O1 -fPIC -shared "$top/test/lib/nogettext.c" -o "$work/nogettext.so"
    echo "$work/nogettext.so"
}

# provide_jars VARIABLE POM: exports the directory of the jars, where the
# unprivileged user can read them.
provide_jars() {
    local libs
    libs=$("$top/test/lib/maven-jars" "$2") || die "Maven could not fetch the jars of $2"
    if [ "$(id -u)" = 0 ]; then
        cp -r "$libs" "$work/$1"
        chmod -R a+rX "$work/$1"
        libs=$work/$1
    fi
    export "$1=$libs"
}
provide_kafka() { provide_jars INGEST_KAFKA_LIBS "$top/test/lib/kafka-pom.xml"; }

# provide_python VARIABLE REQUIREMENTS: exports the directory of a Python with what
# the file names, where the unprivileged user can read it.
provide_python() {
    local peers
    peers=$("$top/test/lib/python-peers" "$2") || die "pip could not install what $2 names"
    if [ "$(id -u)" = 0 ]; then
        rm -rf "${work:?}/$1"
        cp -r "$peers" "$work/$1"
        chmod -R a+rX "$work/$1"
        peers=$work/$1
    fi
    export "$1=$peers"
}
provide_http_peers() { provide_python INGEST_HTTP_PEERS "$top/test/lib/http-peers.txt"; }
provide_schedule_peers() { provide_python INGEST_SCHEDULE_PEERS "$top/test/lib/schedule-peers.txt"; }

# as_user DIR COMMAND ...: in DIR, as postgres when we are root, since the
# server refuses to run as root.
as_user() {
    local dir=$1
    shift
    if [ "$(id -u)" = 0 ]; then
        (cd "$dir" && HOME=$work LANG=C.UTF-8 exec setpriv --reuid postgres --regid postgres --init-groups -- "$@")
    else
        (cd "$dir" && LANG=C.UTF-8 exec "$@")
    fi
}
