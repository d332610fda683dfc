{{- /* The gateway itself adds loopback and the host of auth.resource. */ -}}
{{- define "gw.allowedHosts" -}}
{{- $name := include "gw.fullname" . -}}
{{- $hosts := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) -}}
{{- range concat .Values.allowedHosts .Values.ingress.hosts .Values.httpRoute.hostnames -}}
{{- if not (hasPrefix "*" .) }}{{ $hosts = append $hosts . }}{{ end -}}
{{- end -}}
{{- $hosts | uniq | join "," -}}
{{- end -}}

{{- define "gw.auditSinks" -}}
{{- $sinks := list -}}
{{- with .Values.audit -}}
{{- if .file }}{{ $sinks = append $sinks "file:/var/lib/mcp-gateway/audit/audit.jsonl" }}{{ end -}}
{{- if .stdout }}{{ $sinks = append $sinks "stdout" }}{{ end -}}
{{- with .stream }}{{ $sinks = append $sinks (printf "redis:%s" .) }}{{ end -}}
{{- end -}}
{{- join "," $sinks -}}
{{- end -}}

{{- define "gw.secretEnv" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}}
{{- end -}}

{{- define "gw.redisEnv" -}}
{{- $r := .Values.redis -}}
{{- if $r.existingSecret -}}
{{ include "gw.secretEnv" (dict "name" "GATEWAY_REDIS_URL" "secret" $r.existingSecret "key" $r.key) }}
{{- else -}}
{{- $url := $r.builtin.enabled | ternary (printf "redis://%s-redis:6379/0" (include "gw.fullname" .)) $r.url -}}
{{- if $r.passwordSecret -}}
{{- $url = replace "://" "://:$(REDIS_PASSWORD)@" $url -}}
{{ include "gw.secretEnv" (dict "name" "REDIS_PASSWORD" "secret" $r.passwordSecret "key" $r.passwordKey) }}
{{ end -}}
{{- if $r.sentinel.passwordSecret -}}
{{- $url = printf "%s%s%s" $url (contains "?" $url | ternary "&" "?") "sentinel_password=$(SENTINEL_PASSWORD)" -}}
{{ include "gw.secretEnv" (dict "name" "SENTINEL_PASSWORD" "secret" $r.sentinel.passwordSecret "key" $r.sentinel.passwordKey) }}
{{ end -}}
- {name: GATEWAY_REDIS_URL, value: {{ $url | quote }}}
{{- end }}
- {name: GATEWAY_ON_REDIS_FAILURE, value: {{ $r.onFailure }}}
- {name: GATEWAY_EXPECTED_REPLICAS, value: {{ .Values.autoscaling.enabled | ternary .Values.autoscaling.maxReplicas .Values.replicas | int | quote }}}
{{- end -}}

{{- define "gw.env" -}}
- {name: GATEWAY_CONFIG, value: /etc/mcp-gateway/routes.yaml}
- {name: GATEWAY_HOST, value: 0.0.0.0}
- {name: GATEWAY_PORT, value: "8080"}
- {name: GATEWAY_OPS_PORT, value: {{ .Values.opsService.port | int | quote }}}
{{- if gt (int .Values.workers) 1 }}
- {name: GATEWAY_WORKERS, value: {{ .Values.workers | int | quote }}}
{{- end }}
- {name: GATEWAY_ALLOWED_HOSTS, value: {{ include "gw.allowedHosts" . | quote }}}
{{- with .Values.allowedOrigins }}
- {name: GATEWAY_ALLOWED_ORIGINS, value: {{ join "," . | quote }}}
{{- end }}
- {name: GATEWAY_AUDIT, value: {{ include "gw.auditSinks" . | quote }}}
{{- if ne .Values.audit.durability "write" }}
- {name: GATEWAY_AUDIT_DURABILITY, value: {{ .Values.audit.durability }}}
{{- end }}
{{- if ne .Values.audit.onFailure "deny" }}
- {name: GATEWAY_ON_AUDIT_FAILURE, value: {{ .Values.audit.onFailure }}}
{{- end }}
- {name: GATEWAY_DRAIN_DELAY_SECONDS, value: {{ .Values.drain.delay | int | quote }}}
- {name: GATEWAY_DRAIN_SECONDS, value: {{ .Values.drain.seconds | int | quote }}}
{{- if include "gw.redis" . }}
{{ include "gw.redisEnv" . }}
{{- end }}
{{- with .Values.keys }}{{ if .existingSecret }}
{{ include "gw.secretEnv" (dict "name" "GATEWAY_KEYS" "secret" .existingSecret "key" .key) }}
{{- end }}{{ end }}
{{- with .Values.metrics }}{{ if .tokenSecret }}
{{ include "gw.secretEnv" (dict "name" "GATEWAY_METRICS_TOKEN" "secret" .tokenSecret "key" .tokenKey) }}
{{- end }}{{ end }}
{{- if .Values.ca.configMap }}
- {name: SSL_CERT_FILE, value: /etc/mcp-gateway-ca/{{ .Values.ca.key }}}
{{- end }}
{{- range $name, $from := .Values.credentials.env }}
{{ include "gw.secretEnv" (dict "name" $name "secret" $from.secret "key" $from.key) }}
{{- end }}
{{- range $name, $value := .Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- if include "gw.sharedAudit" . }}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end }}
{{- end -}}
