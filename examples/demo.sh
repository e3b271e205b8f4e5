#!/bin/sh
# The main job on a real process: claim an office, ask about it, refuse a second one, kill the first
# one the hard way, and start the next at once. Builds what it needs; leaves nothing behind.
set -eu
cd "$(dirname "$0")/.."
cargo build --quiet --release
PATH="${CARGO_TARGET_DIR:-$PWD/target}/release:$PATH"
demo=$(mktemp -d)
INCUMBENT_DB="$demo/state.db"
export INCUMBENT_DB
running=
trap 'if [ "$running" ]; then kill -9 "$running"; fi; wait 2>/dev/null || :; rm -rf "$demo"' EXIT

say() { printf '\n$ %s\n' "$*"; }
# Shows a command and its exit code, which is part of the answer.
show() { say "$@"; "$@" || echo "(exit code $?)"; }
# Bounded: a run that never gets its office is a failure, not a wait.
until_running() {
    for _ in $(seq 200); do
        if incumbent status >/dev/null; then return; fi
        sleep 0.05
    done
    echo 'the office was not claimed within 10 s' >&2
    exit 1
}

say 'incumbent run -- sleep 600 &'
incumbent run -- sleep 600 & running=$!
until_running
show incumbent status
show incumbent run -- echo 'a second one, which must not start'
say "kill -9 $running"
kill -9 "$running"
wait "$running" 2>/dev/null || :
running=
show incumbent status
say 'incumbent run -- sleep 600 &     # nothing to clean up'
incumbent run -- sleep 600 & running=$!
until_running
show incumbent history
