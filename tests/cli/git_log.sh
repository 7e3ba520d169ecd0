#!/usr/bin/env bash
# Real input: the git log of a repository, keyed by author, goes through publish | work | replay and comes back
# the same, in order per author.   usage: git_log.sh BINARY REPOSITORY
set -euo pipefail
binary=$(realpath "${1:?usage: git_log.sh BINARY REPOSITORY}")
repository=${2:?usage: git_log.sh BINARY REPOSITORY}
dir=$(mktemp -d "${TMPDIR:-/tmp}/continuum-git-log-XXXXXX")
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; rm -rf "$dir"' EXIT
redis-server --port 0 --unixsocket "$dir/s" --dir "$dir" --save '' --appendonly yes >"$dir/redis.log" 2>&1 &
server=$!
until [[ $(redis-cli -s "$dir/s" ping 2>/dev/null) == PONG ]]; do kill -0 "$server"; done
export CONTINUUM_REDIS="unix://$dir/s"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# A source tree without its history still has a real log to test with: one made on the spot.
if ! git -C "$repository" rev-parse --verify -q HEAD >/dev/null; then
  repository=$dir/repository
  git init -q "$repository"
  for i in $(seq 40); do
    git -C "$repository" -c user.name="Author $((i % 7))" -c user.email=a@b commit -q --allow-empty -m "Change \"$i\" — naïve \\ $i"
  done
fi
git -C "$repository" log --reverse --format='%H%x1f%an%x1f%aI%x1f%s%x1f%b%x1e' | tr '\n' ' ' |
  jq -R -c 'split("\u001e")[] | ltrimstr(" ") | select(length > 0) | split("\u001f")
            | {commit: .[0], author: .[1], at: .[2], subject: .[3], body: .[4]}' >"$dir/in"
count=$(wc -l <"$dir/in")
((count > 0)) || fail "the log is empty"

"$binary" topic create -t commits --partitions 4 >"$dir/out"
"$binary" publish -t commits --key author --type =commit --id commit --time at --producer git "$dir/in"
"$binary" work -t commits -g reader --partition all --from start --drain >"$dir/worked"
"$binary" replay -t commits >"$dir/replayed"

for stage in worked replayed; do
  [[ $(wc -l <"$dir/$stage") == "$count" ]] || fail "$stage has another number of events than the $count of the log"
  jq -c .data "$dir/$stage" >"$dir/data"
  cmp <(sort "$dir/in") <(sort "$dir/data") || fail "$stage has other events than the log"
  # A stable sort by author leaves each author's own order, which must be the log's.
  cmp <(jq -s -c 'sort_by(.author)[]' "$dir/in") <(jq -s -c 'sort_by(.author)[]' "$dir/data") ||
    fail "$stage has the events of an author in another order"
  jq -e -s 'all(.id == .data.commit and .partitionkey == .data.author and .time == .data.at)' "$dir/$stage" >"$dir/out" ||
    fail "$stage has events with another id, key or time"
done
# Replayed as stored, byte for byte: publishing it again under the same name stores nothing.
"$binary" publish -t commits --key author --type =commit --id commit --time at --producer git --json "$dir/in" 2>"$dir/err" |
  jq -e ".summary == {stored: 0, duplicates: $count, rejected: 0, unconfirmed: 0}" >"$dir/out" || fail "published twice"
echo "1 passed, 0 failed"
