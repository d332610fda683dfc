// A small OAuth authorization server to try the gateway with: client credentials, JWT access tokens (RFC 9068) for one
// resource (RFC 8707). One client, one key, nothing stored. Not for production.
import { createHash, createPrivateKey, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import Provider, { errors } from 'oidc-provider';

const { OIDC_ISSUER, OIDC_RESOURCE, OIDC_SCOPES, OIDC_KEY_FILE, OIDC_CLIENT_SECRET_FILE, PORT = '9410' } = process.env;

function need(values) {
  const missing = Object.keys(values).filter((name) => !values[name]);
  if (missing.length > 0) {
    console.error(`oidc-provider needs ${missing.join(', ')}: see examples/oidc-provider/README.md`);
    process.exit(2);
  }
}

function signingKey(file) {
  const jwk = createPrivateKey(readFileSync(file)).export({ format: 'jwk' });
  const { e, kty, n } = jwk;
  const kid = createHash('sha256').update(JSON.stringify({ e, kty, n })).digest('base64url'); // RFC 7638
  return { ...jwk, kid, alg: 'RS256', use: 'sig' };
}

need({ OIDC_ISSUER, OIDC_RESOURCE, OIDC_SCOPES, OIDC_KEY_FILE, OIDC_CLIENT_SECRET_FILE });
const resource = {
  scope: OIDC_SCOPES,
  audience: OIDC_RESOURCE,
  accessTokenFormat: 'jwt',
  accessTokenTTL: 3600,
  jwt: { sign: { alg: 'RS256' } },
};
const provider = new Provider(OIDC_ISSUER, {
  clients: [
    {
      client_id: 'agent',
      client_secret: readFileSync(OIDC_CLIENT_SECRET_FILE, 'utf8').trim(),
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
    },
  ],
  jwks: { keys: [signingKey(OIDC_KEY_FILE)] },
  cookies: { keys: [randomBytes(32).toString('base64url')] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_context, wanted) => {
        if (wanted !== OIDC_RESOURCE) throw new errors.InvalidTarget();
        return resource;
      },
    },
  },
});
const server = provider.listen(Number(PORT), () => console.log(`issuer ${OIDC_ISSUER} on port ${PORT}`));
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => server.close(() => process.exit(0)));
