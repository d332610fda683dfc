#!/bin/sh
# Makes the secrets of docker-compose.yml, once: a file that exists stays as it is. Needs openssl.
# Only the owner can enter the folder. The files in it can be read by all, because each is mounted alone into containers
# whose users are not this one.
set -eu
umask 077
folder=$(dirname "$0")/secrets
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
random() { openssl rand 32 | base64url; }

[ -s valkey_password ] || random > valkey_password
[ -s oidc_client_secret ] || random > oidc_client_secret
[ -s metrics_token ] || random > metrics_token
[ -s gateway_key ] || openssl rand -base64 32 > gateway_key
[ -s oidc_key.pem ] || openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out oidc_key.pem 2> /dev/null

# What follows is made of the above: the public key set (a DER key of this size ends with modulus and 65537), and what
# programs want in a form of their own.
rm -f oidc_jwks.json valkey.conf gateway.env
n=$(openssl pkey -in oidc_key.pem -pubout -outform DER | tail -c 261 | head -c 256 | base64url)
kid=$(printf '{"e":"AQAB","kty":"RSA","n":"%s"}' "$n" | openssl dgst -sha256 -binary | base64url)
printf '{"keys":[{"kty":"RSA","use":"sig","alg":"RS256","kid":"%s","n":"%s","e":"AQAB"}]}\n' "$kid" "$n" > oidc_jwks.json
printf 'requirepass %s\n' "$(cat valkey_password)" > valkey.conf
{
    printf 'GATEWAY_KEYS=%s\n' "$(cat gateway_key)"
    printf 'GATEWAY_METRICS_TOKEN=%s\n' "$(cat metrics_token)"
    printf 'GATEWAY_REDIS_URL=redis://:%s@valkey:6379/0\n' "$(cat valkey_password)"
} > gateway.env
chmod 444 -- *
chmod 600 gateway.env
echo "secrets are in $folder"
