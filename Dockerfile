# syntax=docker/dockerfile:1

# docker build -t mcp-gateway .                          the gateway
# docker build -t deploy-tools --target deploy-tools .   the example server of the demo

FROM docker.io/library/python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/gateway
WORKDIR /src
COPY requirements.lock ./
RUN python -m pip --python /opt/gateway/bin/python install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN python -m pip --python /opt/gateway/bin/python install --no-deps . \
    && find /opt/gateway -type d -name tests -prune -exec rm -rf {} + \
    && find /opt/gateway -name '*.pyi' -delete

FROM docker.io/library/python:3.11-slim AS runtime
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001

FROM runtime AS deploy-tools
WORKDIR /srv
COPY examples/deploy_tools/*.py examples/deploy_tools/
EXPOSE 9000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-I", "-c", "import socket; socket.create_connection(('127.0.0.1', 9000), 2).close()"]
ENTRYPOINT ["python", "-m", "examples.deploy_tools"]
CMD ["--transport", "http", "--host", "0.0.0.0", "--port", "9000"]

FROM runtime AS gateway
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mcp-gateway" \
      org.opencontainers.image.description="One URL for all your MCP servers: authentication, scopes, limits and audit from one YAML file" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/mcp-gateway/mcp-gateway" \
      org.opencontainers.image.documentation="https://github.com/mcp-gateway/mcp-gateway/tree/main/docs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV GATEWAY_HOST=0.0.0.0 GATEWAY_CONFIG=/etc/mcp-gateway/routes.yaml
WORKDIR /tmp
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-I", "-c", "import http.client, os; port = os.environ.get('GATEWAY_OPS_PORT') or os.environ.get('GATEWAY_PORT') or '8080'; c = http.client.HTTPConnection('127.0.0.1', int(port), timeout=2); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["mcp-gateway"]
CMD ["serve"]
