# Shared by test/all and test/demo; sourced.

server_packages=(postgresql-15 postgresql-server-dev-15 librdkafka-dev gcc make pkg-config)
test_packages=(libipc-run-perl kcat maven openjdk-17-jre-headless)

# The server to build against.
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}

log() { printf '# %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Install those of the packages that are missing, as root.
install_packages() {
    local missing=() package
    for package; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || die "missing packages: ${missing[*]} (run as root to install them)"
    log "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # A package's own cluster must not be made or started by the installation.
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
}

# A directory that the unprivileged user can work in.
make_work_dir() {
    local dir
    dir=$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXX")
    chmod 755 "$dir"
    printf '%s\n' "$dir"
}

# build_and_install DIR [VAR=value ...]: the checkout is copied, so that it may
# be read-only or root's, and nothing is built into it.
build_and_install() {
    local dir=$1
    shift
    mkdir -p "$dir"
    tar -C "$top" --exclude=.git --exclude='*.o' --exclude='*.bc' --exclude='*.so' -cf - . | tar -C "$dir" -xf -
    make -s -C "$dir" -j"$(nproc)" PG_CONFIG="$PG_CONFIG" "$@" > "$dir/build.log" 2>&1 ||
        { cat "$dir/build.log" >&2; die "the build failed"; }
    if [ -w "$($PG_CONFIG --pkglibdir)" ]; then
        make -s -C "$dir" PG_CONFIG="$PG_CONFIG" "$@" install >> "$dir/build.log" 2>&1
    else
        sudo make -s -C "$dir" PG_CONFIG="$PG_CONFIG" "$@" install >> "$dir/build.log" 2>&1
    fi || { cat "$dir/build.log" >&2; die "the installation failed"; }
    [ "$(id -u)" != 0 ] || chown -R postgres: "$dir"
}

# as_user DIR COMMAND ...: in DIR, as postgres when we are root, since the
# server refuses to run as root.
as_user() {
    local dir=$1
    shift
    if [ "$(id -u)" = 0 ]; then
        (cd "$dir" && runuser -u postgres -- env PG_CONFIG="$PG_CONFIG" HOME="$dir" \
            INGEST_CACHE="${INGEST_CACHE:-}" "$@")
    else
        (cd "$dir" && env PG_CONFIG="$PG_CONFIG" "$@")
    fi
}
