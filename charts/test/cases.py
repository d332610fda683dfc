"""Combinations of values: those that must render, and those that must be refused by a message that names the value."""

from __future__ import annotations

from typing import Any

Values = dict[str, Any]

ROUTES: Values = {
    "auth": {"resource": "https://mcp.example.com/mcp", "issuers": [{"issuer": "https://idp.example.com"}]},
    "routes": [{"name": "time", "backend": {"url": "http://time-tools:9000/mcp"}, "scopes": ["time:read"]}],
}
BASE: Values = {"routes": ROUTES}
KEYS: Values = {"keys": {"existingSecret": "ring"}}
REDIS: Values = {"redis": {"url": "rediss://redis.data:6380/1", "passwordSecret": "redis-password"}, **KEYS}
PEER = {"namespaceSelector": {"matchLabels": {"team": "agents"}}}
TO = [{"peers": [PEER], "ports": [9000]}]
NETWORK: Values = {"enabled": True, "from": {"agents": [PEER]}, "to": {"backends": TO}}
SECRETS: Values = {
    **ROUTES,
    "routes": [
        {"name": "a", "backend": {"url": "http://a/mcp", "credentials": {"bearer": "${A_TOKEN}"}}, "scopes": []},
        {"name": "b", "backend": {"url": "http://b/mcp", "credentials": {"bearer": "file:/run/secrets/b.tools/token"}}},
    ],
}

# Rendered besides the files of values/; "everything" and two of those files have golden files.
COMBINATIONS: dict[str, Values] = {
    "external-config": {"existingConfigMap": "my-routes", "allowedHosts": ["mcp.example.com"]},
    "restart": {**BASE, "rollout": "restart", "files": {"jwks.json": '{"keys": []}\n'}},
    "pins": {**BASE, "toolsLock": '{\n  "version": 1,\n  "routes": {}\n}\n'},
    "redis-url": {**BASE, **REDIS, "replicas": 3, "antiAffinity": "hard"},
    "redis-sentinel": {
        **BASE,
        **KEYS,
        "redis": {
            "url": "rediss+sentinel://one.data:26379,two.data/limits/1",
            "passwordSecret": "redis-password",
            "sentinel": {"passwordSecret": "sentinel-password"},
        },
        "replicas": 2,
    },
    "redis-secret": {**BASE, **KEYS, "redis": {"existingSecret": "redis-url"}, "workers": 4},
    "redis-builtin": {
        **BASE,
        **KEYS,
        "redis": {"builtin": {"enabled": True}, "passwordSecret": "redis-password"},
        "replicas": 2,
        "networkPolicy": NETWORK,
    },
    "autoscaling": {
        **BASE,
        **REDIS,
        "autoscaling": {"enabled": True, "podMetric": {"name": "mcp_gateway_inflight"}},
        "pdb": {"enabled": True, "maxUnavailable": "25%"},
    },
    "credentials": {
        "routes": SECRETS,
        "credentials": {"env": {"A_TOKEN": {"secret": "a", "key": "token"}}, "files": ["b.tools"]},
    },
    "audit-claim": {**BASE, "audit": {"volume": {"type": "pvc", "size": "20Gi", "storageClass": "fast"}}},
    "audit-shared": {
        **BASE,
        **REDIS,
        "replicas": 2,
        "audit": {"durability": "fsync", "volume": {"type": "pvc", "accessMode": "ReadWriteMany"}},
    },
    "audit-own-claim": {**BASE, "audit": {"volume": {"type": "pvc", "existingClaim": "audit"}}},
    "audit-stream": {**BASE, **REDIS, "audit": {"file": False, "stream": "mcp:audit"}},
    "audit-stdout": {**BASE, "audit": {"file": False}},
    "pod-monitor": {**BASE, "metrics": {"podMonitor": {"enabled": True}, "tokenSecret": "metrics"}},
    "ingress-haproxy": {
        **BASE,
        "ingress": {"enabled": True, "controller": "haproxy", "hosts": ["a.example.com", "b.example.com"]},
    },
    "ingress-other": {**BASE, "ingress": {"enabled": True, "controller": "other", "hosts": ["*.example.com"]}},
    "long-drain": {**BASE, "drain": {"delay": 10, "seconds": 120}, "terminationGracePeriodSeconds": 200},
    "names": {
        **BASE,
        "fullnameOverride": "tools",
        "serviceAccount": {"create": False},
        "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": ["registry"]},
        "service": {"type": "LoadBalancer", "port": 443, "annotations": {"a": "b"}},
        "opsService": {"port": 9100},
    },
    "placed": {
        **BASE,
        "nodeSelector": {"pool": "edge"},
        "tolerations": [{"key": "edge", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "podLabels": {"team": "platform"},
        "podAnnotations": {"note": "x"},
    },
    "everything": {
        "routes": SECRETS,
        **REDIS,
        "credentials": {"env": {"A_TOKEN": {"secret": "a", "key": "token"}}, "files": ["b.tools"]},
        "ca": {"configMap": "company-ca"},
        "env": {"GATEWAY_LOG_LEVEL": "debug", "OTEL_SERVICE_NAME": "gw"},
        "allowedOrigins": ["https://console.example.com"],
        "workers": 2,
        "autoscaling": {"enabled": True},
        "pdb": {"enabled": True},
        "audit": {"volume": {"type": "pvc", "accessMode": "ReadWriteMany"}},
        "networkPolicy": {**NETWORK, "to": {"backends": TO, "redis": TO, "issuers": TO}},
        "metrics": {"serviceMonitor": {"enabled": True}, "tokenSecret": "metrics"},
        "ingress": {"enabled": True, "hosts": ["mcp.example.com"], "tlsSecret": "tls"},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["mcp.example.com"]},
        "test": {"tokenSecret": "test-token", "tool": "a__x"},
    },
}

# What is wrong, and what the message must contain.
BAD: list[tuple[Values, str]] = [
    ({}, "routes:"),
    ({"routes": {"routes": []}}, "routes.auth"),
    ({**BASE, "existingConfigMap": "x"}, "existingConfigMap"),
    ({"existingConfigMap": "x", "rollout": "restart"}, "rollout"),
    ({"existingConfigMap": "x", "files": {"a": "b"}}, "files"),
    ({"existingConfigMap": "x", "toolsLock": "{}"}, "toolsLock"),
    ({**BASE, "replicas": 2}, "replicas: 2 pods share limits through Redis"),
    ({**BASE, "workers": 2}, "workers: 2 processes share limits through Redis"),
    ({**BASE, "autoscaling": {"enabled": True}}, "autoscaling.enabled"),
    ({**BASE, "redis": {"url": "redis://r:6379"}}, "keys.existingSecret"),
    ({**BASE, **KEYS, "redis": {"url": "redis://r:6379", "existingSecret": "r"}}, "redis: set one of"),
    ({**BASE, **KEYS, "redis": {"url": "redis://:secret@r:6379"}}, "/redis/url"),
    ({**BASE, **KEYS, "redis": {"url": "http://r"}}, "/redis/url"),
    ({**BASE, **KEYS, "redis": {"url": "redis+sentinel://r"}}, "/redis/url"),
    (
        {**BASE, **KEYS, "redis": {"url": "redis://r", "sentinel": {"passwordSecret": "s"}}},
        "redis.sentinel.passwordSecret",
    ),
    ({**BASE, **KEYS, "redis": {"builtin": {"enabled": True}}}, "redis.passwordSecret"),
    ({**BASE, **KEYS, "redis": {"builtin": {"enabled": True, "image": "valkey"}}}, "/redis/builtin/image"),
    ({**BASE, "redis": {"onFailure": "panic"}}, "/redis/onFailure"),
    (
        {**BASE, **REDIS, "autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}},
        "autoscaling.maxReplicas",
    ),
    ({**BASE, **REDIS, "autoscaling": {"enabled": True}, "resources": {"requests": None}}, "resources.requests.cpu"),
    ({**BASE, "terminationGracePeriodSeconds": 44}, "terminationGracePeriodSeconds: 44"),
    ({**BASE, "drain": {"seconds": 60}, "terminationGracePeriodSeconds": 60}, "terminationGracePeriodSeconds: 60"),
    ({**BASE, "drain": {"seconds": "25s"}}, "/drain/seconds"),
    ({**BASE, "audit": {"file": False, "stdout": False}}, "audit: file or stdout"),
    ({**BASE, "audit": {"stream": "audit"}}, "audit.stream"),
    ({**BASE, "allowedHosts": ["*.example.com"]}, "/allowedHosts/0"),
    ({**BASE, **REDIS, "replicas": 2, "audit": {"volume": {"type": "pvc"}}}, "audit.volume.accessMode"),
    ({**BASE, "audit": {"onFailure": "ignore"}}, "/audit/onFailure"),
    ({"routes": SECRETS, "credentials": {"files": ["b.tools"]}}, "credentials.env: routes refer to ${A_TOKEN}"),
    (
        {"routes": SECRETS, "credentials": {"env": {"A_TOKEN": {"secret": "a", "key": "t"}}}},
        "credentials.files: routes refer to file:/run/secrets/b.tools",
    ),
    ({**BASE, "credentials": {"env": {"A": "secret"}}}, "/credentials/env/A"),
    ({**BASE, "credentials": {"env": {"GATEWAY_KEYS": {"secret": "a", "key": "b"}}}}, "/credentials/env/GATEWAY_KEYS"),
    ({**BASE, "env": {"GATEWAY_PORT": "80"}}, "/env/GATEWAY_PORT"),
    ({**BASE, "env": {"GATEWAY_MAX_BODY_BYTES": 4194304}}, "/env/GATEWAY_MAX_BODY_BYTES"),
    ({**BASE, "networkPolicy": {**NETWORK, "from": {}}}, "networkPolicy.from.agents"),
    ({**BASE, "networkPolicy": {**NETWORK, "to": {}}}, "networkPolicy.to.backends"),
    ({**BASE, **REDIS, "networkPolicy": NETWORK}, "networkPolicy.to.redis"),
    ({**BASE, "networkPolicy": {"from": {"agents": [{}]}}}, "/networkPolicy/from/agents/0"),
    (
        {**BASE, "networkPolicy": {"to": {"backends": [{"peers": [], "ports": [1]}]}}},
        "/networkPolicy/to/backends/0/peers",
    ),
    ({**BASE, "metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}, "metrics.podMonitor"),
    ({**BASE, "ingress": {"enabled": True}}, "ingress.hosts"),
    ({**BASE, "ingress": {"host": "x"}}, "/ingress"),
    ({**BASE, "httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
    ({**BASE, "httpRoute": {"timeout": "forever"}}, "/httpRoute/timeout"),
    ({**BASE, "opsService": {"port": 8080}}, "/opsService/port"),
    ({**BASE, "replicas": "two"}, "/replicas"),
    ({**BASE, "replicaCount": 2}, "replicaCount"),
    ({**BASE, "image": {"digest": "latest"}}, "/image/digest"),
    ({**BASE, "files": {"routes.yaml": "x"}}, "/files/routes.yaml"),
    ({**BASE, "files": {"tools.lock": "x"}}, "/files/tools.lock"),
]
