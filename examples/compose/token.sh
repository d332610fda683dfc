#!/bin/sh
# Prints an access token of the example provider, for the gateway, with the scopes that are named.
#   sh examples/compose/token.sh deploy:read deploy:write
set -eu
: "${1:?name the scopes, such as deploy:read}"
secrets=$(dirname "$0")/secrets
printf 'user = "agent:%s"\n' "$(cat "$secrets/oidc_client_secret")" |
    curl --silent --show-error --fail-with-body --config - \
        --data grant_type=client_credentials \
        --data-urlencode resource=http://localhost:8080/mcp \
        --data-urlencode "scope=$*" \
        http://localhost:9410/token |
    sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p'
