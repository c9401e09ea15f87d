#!/bin/sh
# Starts PostgreSQL; makes the database cluster before, where there is none.
# POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_INITDB_ARGS mean what they mean
# to the official image.
set -eu

case ${1-} in
-*) set -- postgres "$@" ;;
esac
if [ "${1-}" != postgres ]; then
	exec "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	if [ -z "${POSTGRES_PASSWORD-}" ]; then
		echo "docker-entrypoint.sh: POSTGRES_PASSWORD is missing: the database has no cluster yet" >&2
		exit 1
	fi
	umask 077
	printf '%s\n' "$POSTGRES_PASSWORD" >"/tmp/password.$$"
	# What another start makes anew need not reach the disk twice.
	# shellcheck disable=SC2086 # arguments, as the official image takes them
	initdb --username="${POSTGRES_USER:-postgres}" --pwfile="/tmp/password.$$" \
		--auth=scram-sha-256 --no-sync ${POSTGRES_INITDB_ARGS-} >&2
	rm "/tmp/password.$$"
	printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
	sync
fi
unset POSTGRES_PASSWORD
exec "$@" -c "listen_addresses=*"
