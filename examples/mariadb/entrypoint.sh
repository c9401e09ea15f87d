#!/bin/bash
# Starts MariaDB; initialises its data directory first if that is empty. The
# environment variables are those of the official image, with the prefix
# MARIADB_ or MYSQL_; see README.md.
set -euo pipefail
shopt -s nullglob

log() { printf 'entrypoint: %s\n' "$*" >&2; }
die() {
	log "error: $*"
	exit 1
}

# setting NAME: takes $MARIADB_NAME, $MYSQL_NAME, or the content of the file that
# either with _FILE names, into the variable NAME. The environment is rid of them:
# the server has no use for passwords.
setting() {
	local name found='' value=''
	for name in "MARIADB_$1" "MYSQL_$1"; do
		if [ -n "${!name:-}" ]; then
			[ -z "$found" ] || die "$found and $name are both set"
			found=$name value=${!name}
		fi
		local file=${name}_FILE
		if [ -n "${!file:-}" ]; then
			[ -z "$found" ] || die "$found and $file are both set"
			[ -r "${!file}" ] || die "$file: ${!file} cannot be read"
			found=$file value=$(<"${!file}")
		fi
		unset "$name" "$file"
	done
	printf -v "$1" %s "$value"
}

# text VALUE and name VALUE: an SQL string and an SQL identifier, on one line.
text() {
	local s=$1
	s=${s//\\/\\\\}
	s=${s//\'/\\\'}
	s=${s//$'\n'/\\n}
	printf "'%s'" "$s"
}
name() { printf '`%s`' "${1//\`/\`\`}"; }

# The value that the server will have for a setting, from its arguments or files.
server_setting() {
	local line value=$2
	while read -r line; do
		case ${line//_/-} in "--$1="*) value=${line#*=} ;; esac
	done < <(my_print_defaults --mariadbd; printf '%s\n' "${arguments[@]}")
	printf %s "$value"
}

system_tables() {
	local dir=/usr/share/mysql
	printf '%s\n' 'create database if not exists mysql;' 'use mysql;' "set @auth_root_socket = 'root';"
	cat $dir/mysql_system_tables.sql $dir/mysql_performance_tables.sql \
		$dir/mysql_system_tables_data.sql $dir/maria_add_gis_sp_bootstrap.sql
}

# A bootstrapping server reads one statement a line.
accounts() {
	# The tables' data know this host's name, which nobody will connect from.
	printf '%s\n' "delete from proxies_priv where Host <> 'localhost';" 'flush privileges;' \
		"set sql_mode = '';" 'set names utf8mb4;'
	local host
	for host in localhost "$ROOT_HOST"; do
		printf 'create or replace user %s@%s identified by %s;\n' "'root'" "$(text "$host")" "$(text "$ROOT_PASSWORD")"
		printf 'grant all on *.* to %s@%s with grant option;\n' "'root'" "$(text "$host")"
	done
	if [ -n "$DATABASE" ]; then
		printf 'create database if not exists %s;\n' "$(name "$DATABASE")"
	fi
	if [ -n "$USER" ]; then
		printf 'create user %s@%s identified by %s;\n' "$(text "$USER")" "'%'" "$(text "$PASSWORD")"
		if [ -n "$DATABASE" ]; then
			# In a grant, _ and % in a database's name are wildcards.
			local pattern=${DATABASE//_/\\_}
			printf 'grant all on %s.* to %s@%s;\n' "$(name "${pattern//%/\\%}")" "$(text "$USER")" "'%'"
		fi
	fi
}

check_settings() {
	setting ROOT_PASSWORD
	setting ALLOW_EMPTY_ROOT_PASSWORD
	setting ALLOW_EMPTY_PASSWORD
	setting RANDOM_ROOT_PASSWORD
	setting ROOT_HOST
	setting DATABASE
	setting USER
	setting PASSWORD
	: "${ROOT_HOST:=%}"
}

check_accounts() {
	if [ -z "$ROOT_PASSWORD$ALLOW_EMPTY_ROOT_PASSWORD$ALLOW_EMPTY_PASSWORD$RANDOM_ROOT_PASSWORD" ]; then
		die 'the data directory is empty, and nothing says which password root gets: set one of' \
			'MARIADB_ROOT_PASSWORD, MARIADB_RANDOM_ROOT_PASSWORD and MARIADB_ALLOW_EMPTY_ROOT_PASSWORD'
	fi
	case $DATABASE in *$'\n'*) die 'MARIADB_DATABASE holds a line feed' ;; esac
	[ "$USER" != root ] || die 'MARIADB_USER=root: root is there anyway; its password is MARIADB_ROOT_PASSWORD'
	[ -z "$USER" ] || [ -n "$PASSWORD" ] || die 'MARIADB_USER is set and MARIADB_PASSWORD is not'
	[ -n "$USER" ] || [ -z "$PASSWORD" ] || die 'MARIADB_PASSWORD is set and MARIADB_USER is not'
	if [ -z "$ROOT_PASSWORD" ] && [ -n "$RANDOM_ROOT_PASSWORD" ]; then
		ROOT_PASSWORD=$(head -c 24 /dev/urandom | base64)
		log "GENERATED ROOT PASSWORD: $ROOT_PASSWORD"
	fi
}

# What the user wants run once: the server is started for it, out of reach.
run_scripts() {
	local scripts=(/docker-entrypoint-initdb.d/*) script server
	[ ${#scripts[@]} -gt 0 ] || return 0
	log 'starting the server for the scripts'
	mariadbd "${arguments[@]}" --skip-networking --socket="$socket" &
	server=$!
	export MYSQL_PWD=$ROOT_PASSWORD
	client=(mariadb --no-defaults --protocol=socket --socket="$socket" --user=root --binary-mode)
	until "${client[@]}" --execute='do 1' 2>/dev/null; do
		kill -0 "$server" 2>/dev/null || die 'the server ended before it answered'
		sleep 0.2
	done
	for script in "${scripts[@]}"; do
		log "running $script"
		case $script in
		*.sql) "${client[@]}" ${DATABASE:+--database="$DATABASE"} <"$script" || die "$script failed" ;;
		*.sh) bash "$script" || die "$script failed" ;;
		*) log "ignoring $script: neither .sql nor .sh" ;;
		esac
	done
	unset MYSQL_PWD
	kill "$server"
	wait "$server" || die 'the server did not stop cleanly'
}

initialise() {
	check_accounts
	log "initialising $data"
	: >"$unfinished"
	# From here on an interruption leaves a folder that the next start refuses.
	{
		system_tables
		accounts
	} | mariadbd "${arguments[@]}" --bootstrap --silent-startup --log-warnings=0 --enforce-storage-engine= \
		--max-allowed-packet=8M --net-buffer-length=16K ||
		die 'initialising failed'
	run_scripts
	rm "$unfinished"
	log 'initialised'
}

trap 'exit 143' INT TERM # as the first process of a container bash would ignore them
[ $# -gt 0 ] || set -- mariadbd
case $1 in -*) set -- mariadbd "$@" ;; esac
case $1 in
mariadbd | mysqld) ;;
*) exec "$@" ;;
esac
for argument in "${@:2}"; do
	case $argument in --help | -\? | --version | -V | --print-defaults) exec "$@" ;; esac
done

arguments=("${@:2}")
data=$(server_setting datadir /var/lib/mysql)
socket=$(server_setting socket /run/mysqld/mysqld.sock)
unfinished=$data/.initialising

if [ "$(id -u)" = 0 ]; then
	for folder in "$data" "${socket%/*}"; do
		mkdir -p "$folder"
		[ "$(stat -c %U "$folder")" = mysql ] || chown -R mysql:mysql "$folder"
	done
	exec setpriv --reuid=mysql --regid=mysql --init-groups -- "$0" "$@"
fi

check_settings
[ ! -e "$unfinished" ] || die "an earlier initialisation of $data was cut short: empty it first"
[ -d "$data/mysql" ] || initialise
exec "$@"
