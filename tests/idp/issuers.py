"""Keycloak and oidc-provider as processes, and the OAuth flows that clients run with them."""

import base64
import hashlib
import html
import json
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.e2e.harness import NO_TLS, free_port

RESOURCE = f"http://127.0.0.1:{free_port()}/mcp"
"""The gateway's own URL, as its clients know it: those that follow the specification compare the two."""
REALM = "agents"
REDIRECT = "http://127.0.0.1/callback"
STARTED_SECONDS = 180.0
TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def http(method: str, url: str, **request: Any) -> httpx2.Response:
    """One request on a connection of its own, nothing followed, nothing of the environment."""
    return httpx2.request(method, url, trust_env=False, verify=NO_TLS, timeout=30, **request)


class Refused(Exception):  # noqa: N818 - what it says is the word
    """The issuer gave no token; the message is its ``error``."""


def token_of(reply: httpx2.Response) -> str:
    """The access token of a token endpoint's answer.

    Raises:
        Refused: there is none.
    """
    said = reply.json()
    if reply.status_code != 200:
        raise Refused(said.get("error", str(reply.status_code)))
    token: str = said["access_token"]
    return token


def part_of(token: str, index: int) -> dict[str, Any]:
    """Header (0) or claims (1) of a JWT."""
    part = token.split(".")[index]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return decoded


@dataclass
class Keycloak:
    """A server in development mode with the realm of ``examples/keycloak``, and an administrator."""

    base: str
    secret: str
    password: str
    admin_password: str
    seconds: float = 0.0
    _cookies: dict[str, str] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"{self.base}/realms/{REALM}"

    def endpoint(self, name: str, realm: str = REALM) -> str:
        return f"{self.base}/realms/{realm}/protocol/openid-connect/{name}"

    def client_credentials(self, client: str, scope: str = "") -> str:
        """RFC 6749 section 4.4."""
        form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
        return token_of(http("POST", self.endpoint("token"), data=form, auth=(client, self.secret)))

    def exchange(self, client: str, subject_token: str, scope: str = "") -> str:
        """RFC 8693: another token for the same user, for what ``client`` may ask for."""
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": subject_token,
            "subject_token_type": TOKEN_TYPE,
            "scope": scope,
        }
        return token_of(http("POST", self.endpoint("token"), data=form, auth=(client, self.secret)))

    def authorization_code(self, client: str, user: str, scope: str) -> dict[str, Any]:
        """RFC 6749 section 4.1 with PKCE (RFC 7636), as a browser with a user before it would do it."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "client_id": client,
            "response_type": "code",
            "redirect_uri": REDIRECT,
            "scope": f"openid {scope}",
            "state": secrets.token_urlsafe(8),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "resource": RESOURCE,
        }
        code = self.sign_in(self.endpoint("auth") + "?" + urlencode(asked), user)["code"]
        form = {
            "grant_type": "authorization_code",
            "client_id": client,
            "code": code,
            "redirect_uri": REDIRECT,
            "code_verifier": verifier,
        }
        reply = http("POST", self.endpoint("token"), data=form)
        token_of(reply)
        said: dict[str, Any] = reply.json()
        return said

    def revoke(self, client: str, token: str) -> None:
        """RFC 7009."""
        reply = http("POST", self.endpoint("revoke"), data={"token": token}, auth=(client, self.secret))
        assert reply.status_code == 200, reply.text

    def add_key(self, priority: int) -> str:
        """A new signing key that is used from now on; returns its id for ``remove_key``."""
        component = {
            "name": f"key-{priority}",
            "providerId": "rsa-generated",
            "providerType": "org.keycloak.keys.KeyProvider",
            "config": {"priority": [str(priority)], "enabled": ["true"], "active": ["true"], "keySize": ["2048"]},
        }
        made = self._admin("POST", "components", json=component)
        return made.headers["location"].rpartition("/")[2]

    def signing_keys(self) -> list[str]:
        """The ids of the components that hold keys for RS256."""
        listed = self._admin("GET", "components?type=org.keycloak.keys.KeyProvider").json()
        return [one["id"] for one in listed if one["providerId"] == "rsa-generated"]

    def remove_key(self, component: str) -> None:
        """Withdraw it: the key set loses it at once."""
        self._admin("DELETE", f"components/{component}")

    def accounts_client(self, redirect: str) -> None:
        """A confidential client ``accounts`` for authorization codes with PKCE."""
        client = {
            "clientId": "accounts",
            "secret": self.secret,
            "publicClient": False,
            "redirectUris": [redirect],
            "attributes": {"pkce.code.challenge.method": "S256"},
        }
        self._admin("POST", "clients", json=client)

    def other_realm(self) -> None:
        """A second realm with a client ``ci`` that writes the same audience."""
        placeholder = "${AGENTS_RESOURCE:https://mcp.example.com/mcp}"
        realm = json.loads((_EXAMPLES / "keycloak" / "realm.json").read_text().replace(placeholder, RESOURCE))
        realm |= {"realm": "others", "users": []}
        for client in realm["clients"]:
            if "secret" in client:
                client["secret"] = self.secret
        reply = http("POST", f"{self.base}/admin/realms", json=realm, headers=self._administrator())
        assert reply.status_code == 201, reply.text

    def token_of_other_realm(self) -> str:
        """As ``client_credentials`` of ``ci`` there."""
        form = {"grant_type": "client_credentials", "scope": "deploy:read"}
        return token_of(http("POST", self.endpoint("token", "others"), data=form, auth=("ci", self.secret)))

    def _admin(self, method: str, path: str, **request: Any) -> httpx2.Response:
        url = f"{self.base}/admin/realms/{REALM}/{path}"
        reply = http(method, url, headers=self._administrator(), **request)
        assert reply.status_code in (200, 201, 204), f"{method} {path}: {reply.status_code} {reply.text}"
        return reply

    def _administrator(self) -> dict[str, str]:
        form = {
            "grant_type": "password",
            "client_id": "admin-cli",
            "username": "admin",
            "password": self.admin_password,
        }
        return {"Authorization": f"Bearer {token_of(http('POST', self.endpoint('token', 'master'), data=form))}"}

    def sign_in(self, url: str, user: str) -> dict[str, str]:
        """What a browser brings back from the authorization endpoint, through the login page where there is one."""
        page = self._browse("GET", url)
        if page.status_code == 200:
            action = re.search(r'action="([^"]+)"', page.text)
            assert action is not None, page.text[:500]
            form = {"username": user, "password": self.password, "credentialId": ""}
            page = self._browse("POST", html.unescape(action[1]), data=form)
        assert page.status_code in (302, 303), page.text[:500]
        answer = {name: values[0] for name, values in parse_qs(urlsplit(page.headers["location"]).query).items()}
        if "error" in answer:
            raise Refused(f"{answer['error']} {answer.get('error_description', '')} {url}")
        assert answer["state"] == parse_qs(urlsplit(url).query)["state"][0]
        assert answer["iss"] == self.issuer
        return answer

    def forget(self) -> None:
        """Another browser."""
        self._cookies.clear()

    def _browse(self, method: str, url: str, **request: Any) -> httpx2.Response:
        """Cookies are kept by hand: they are marked Secure, and this machine's loopback counts as that to a browser."""
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        reply = http(method, url, headers={"Cookie": cookies} if cookies else {}, **request)
        for line in reply.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self._cookies[name] = value
        return reply


@contextmanager
def keycloak(folder: Path, java: Path, state: Path) -> Iterator[Keycloak]:
    """Start it with the example's realm; its data is below ``state`` and gone with it.

    Raises:
        RuntimeError: it did not start; the message is the end of what it said.
    """
    port = free_port()
    one = Keycloak(f"http://127.0.0.1:{port}", *(secrets.token_urlsafe(12) for _ in range(3)))
    imported = folder / "data" / "import"
    imported.mkdir(parents=True, exist_ok=True)
    (imported / "realm.json").write_text((_EXAMPLES / "keycloak" / "realm.json").read_text())
    environ = {
        "PATH": os.environ["PATH"],
        "JAVA_HOME": str(java),
        "JAVA_OPTS_APPEND": "-Xmx700m",
        "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
        "KC_BOOTSTRAP_ADMIN_PASSWORD": one.admin_password,
        "AGENTS_RESOURCE": RESOURCE,
        "AGENTS_CLIENT_SECRET": one.secret,
        "AGENTS_USER_PASSWORD": one.password,
    }
    options = ["--http-host=127.0.0.1", f"--http-port={port}", "--import-realm", "--db=dev-mem", "--cache=local"]
    began = time.monotonic()
    command = [str(folder / "bin" / "kc.sh"), "start-dev", *options]
    with _process(command, environ, state / "keycloak.log") as ended:
        _until(lambda: _answers(f"{one.issuer}/.well-known/openid-configuration"), ended, state / "keycloak.log")
        one.seconds = time.monotonic() - began
        yield one


@dataclass
class Provider:
    """The example's authorization server; one client, one key."""

    issuer: str
    secret: str

    def client_credentials(self, scope: str, resource: str = RESOURCE) -> str:
        """RFC 6749 section 4.4 with RFC 8707."""
        form = {"grant_type": "client_credentials", "scope": scope, "resource": resource}
        return token_of(http("POST", f"{self.issuer}/token", data=form, auth=("agent", self.secret)))


@contextmanager
def oidc_provider(node: Path, script: Path, state: Path, port: int) -> Iterator[Provider]:
    """Start it with a new key on this port."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (state / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    one = Provider(f"http://127.0.0.1:{port}", secrets.token_urlsafe(16))
    (state / "secret").write_text(one.secret)
    environ = {
        "PATH": os.environ["PATH"],
        "OIDC_ISSUER": one.issuer,
        "OIDC_RESOURCE": RESOURCE,
        "OIDC_SCOPES": "deploy:read deploy:write",
        "OIDC_KEY_FILE": str(state / "key.pem"),
        "OIDC_CLIENT_SECRET_FILE": str(state / "secret"),
        "PORT": str(port),
    }
    with _process([str(node), str(script)], environ, state / "provider.log") as ended:
        _until(lambda: _answers(f"{one.issuer}/jwks"), ended, state / "provider.log")
        yield one


@contextmanager
def _process(command: list[str], environ: dict[str, str], log: Path) -> Iterator[Callable[[], bool]]:
    """Run it in a group of its own and end the whole group; gives a look at whether it has ended."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield lambda: process.poll() is not None
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    try:
        return http("GET", url).status_code == 200
    except httpx2.TransportError:
        return False


def _until(ready: Callable[[], bool], ended: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + STARTED_SECONDS
    while not ready():
        if ended() or time.monotonic() > deadline:
            raise RuntimeError(f"did not start: {log.read_text()[-1500:]}")
        time.sleep(0.3)
