#!/usr/bin/env bash
# Serves an OpenAI-compatible model on 127.0.0.1:PORT (0, the default, takes a free one) that answers from a
# script: FIXTURES, by default ai-replies.json beside this file. A request that no line of the script
# matches is refused (--strict). Every request it saw: GET /__aimock/journal.
#
# Ready when a line names http://127.0.0.1:PORT. `make tools` installs it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
port=${1:-0}
fixtures=${2:-$here/ai-replies.json}
root=$(cd "$here/../../.." && pwd)
aimock=${ACKLINE_TOOLS_DIR:-$root/.tools}/counterparts/node_modules/@copilotkit/aimock/dist/cli.js
[ -f "$aimock" ] || {
  echo "aimock: it is not installed: run \`make tools\`." >&2
  exit 1
}
exec node "$aimock" --host 127.0.0.1 --port "$port" --fixtures "$fixtures" --strict --journal-max 1000
