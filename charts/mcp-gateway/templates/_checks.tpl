{{- /* What a schema cannot say: values that do not fit each other. Every message names the value. */ -}}
{{- define "gw.checks" -}}
{{- include "gw.checkConfig" . -}}
{{- include "gw.checkState" . -}}
{{- include "gw.checkAudit" . -}}
{{- include "gw.checkNetwork" . -}}
{{- $needed := int (add .Values.drain.delay .Values.drain.seconds 15) -}}
{{- with .Values.terminationGracePeriodSeconds }}{{ if lt (int .) $needed }}
{{- fail (printf "terminationGracePeriodSeconds: %d is less than drain.delay + drain.seconds + 15 = %d, calls would be killed" (int .) $needed) }}
{{- end }}{{ end -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled }}
{{- fail "metrics.podMonitor.enabled: every pod would be scraped twice, metrics.serviceMonitor.enabled is on already" }}
{{- end -}}
{{- end -}}

{{- define "gw.checkConfig" -}}
{{- if and .Values.routes .Values.existingConfigMap }}{{ fail "existingConfigMap: set either this or routes, not both" }}{{ end -}}
{{- if and .Values.files .Values.existingConfigMap }}{{ fail "files: put them into the ConfigMap that existingConfigMap names" }}{{ end -}}
{{- if and .Values.toolsLock .Values.existingConfigMap }}{{ fail "toolsLock: put it into the ConfigMap that existingConfigMap names" }}{{ end -}}
{{- if and .Values.existingConfigMap (eq .Values.rollout "restart") }}{{ fail "rollout: restart needs routes; the chart cannot see a change of existingConfigMap" }}{{ end -}}
{{- if .Values.routes -}}
{{- if not .Values.routes.auth }}{{ fail "routes.auth: missing, and without authentication the gateway listens on loopback only" }}{{ end -}}
{{- $text := toYaml .Values.routes -}}
{{- range regexFindAll "\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}" $text -1 | uniq }}
{{- $name := . | trimPrefix "${" | trimSuffix "}" -}}
{{- if not (or (hasKey $.Values.credentials.env $name) (hasKey $.Values.env $name)) }}{{ fail (printf "credentials.env: routes refer to %s, which is not there" .) }}{{ end -}}
{{- end -}}
{{- range regexFindAll "file:/run/secrets/[a-z0-9.-]+" $text -1 | uniq }}
{{- $name := trimPrefix "file:/run/secrets/" . -}}
{{- if not (has $name $.Values.credentials.files) }}{{ fail (printf "credentials.files: routes refer to %s, but no Secret %q is mounted" . $name) }}{{ end -}}
{{- end -}}
{{- else if not .Values.existingConfigMap }}{{ fail "routes: missing, give the content of routes.yaml or name an existingConfigMap" }}{{ end -}}
{{- end -}}

{{- define "gw.checkState" -}}
{{- $redis := include "gw.redis" . -}}
{{- $r := .Values.redis -}}
{{- if gt (len (compact (list $r.url $r.existingSecret ($r.builtin.enabled | ternary "yes" "")))) 1 }}{{ fail "redis: set one of url, existingSecret and builtin.enabled" }}{{ end -}}
{{- if and $r.builtin.enabled (not $r.passwordSecret) }}{{ fail "redis.passwordSecret: redis.builtin.enabled needs a Secret with the password" }}{{ end -}}
{{- if and $r.sentinel.passwordSecret (not (contains "+sentinel://" $r.url)) }}{{ fail "redis.sentinel.passwordSecret: needs redis.url with redis+sentinel:// or rediss+sentinel://" }}{{ end -}}
{{- if not $redis -}}
{{- if .Values.autoscaling.enabled }}{{ fail "autoscaling.enabled: several pods share limits through Redis; set redis.url, redis.existingSecret or redis.builtin.enabled" }}{{ end -}}
{{- if gt (int .Values.replicas) 1 }}{{ fail (printf "replicas: %d pods share limits through Redis; set redis.url, redis.existingSecret or redis.builtin.enabled" (int .Values.replicas)) }}{{ end -}}
{{- if gt (int .Values.workers) 1 }}{{ fail (printf "workers: %d processes share limits through Redis; set redis.url, redis.existingSecret or redis.builtin.enabled" (int .Values.workers)) }}{{ end -}}
{{- else if not .Values.keys.existingSecret }}{{ fail "keys.existingSecret: pods that share Redis must share a key ring; make a Secret with GATEWAY_KEYS and name it here" }}{{ end -}}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) }}{{ fail "autoscaling.maxReplicas: is less than autoscaling.minReplicas" }}{{ end -}}
{{- if and .Values.autoscaling.enabled (not ((.Values.resources).requests).cpu) }}{{ fail "resources.requests.cpu: autoscaling.cpu is a share of it" }}{{ end -}}
{{- end -}}

{{- define "gw.checkAudit" -}}
{{- if not (include "gw.auditSinks" .) }}{{ fail "audit: file or stdout must be on, or a stream named" }}{{ end -}}
{{- if and .Values.audit.stream (not (include "gw.redis" .)) }}{{ fail "audit.stream: is in Redis; set redis.url, redis.existingSecret or redis.builtin.enabled" }}{{ end -}}
{{- with .Values.audit }}{{ if and .file (eq .volume.type "pvc") (eq .volume.accessMode "ReadWriteOnce") (include "gw.several" $) }}
{{- fail "audit.volume.accessMode: ReadWriteOnce is for one pod; take ReadWriteMany, or audit.volume.type emptyDir" }}
{{- end }}{{ end -}}
{{- end -}}

{{- define "gw.checkNetwork" -}}
{{- with .Values.networkPolicy }}{{ if .enabled -}}
{{- if not .from.agents }}{{ fail "networkPolicy.from.agents: empty, so nobody could call" }}{{ end -}}
{{- if not .to.backends }}{{ fail "networkPolicy.to.backends: empty, so no backend could be reached" }}{{ end -}}
{{- if and (include "gw.redis" $) (not $.Values.redis.builtin.enabled) (not .to.redis) }}{{ fail "networkPolicy.to.redis: empty, so Redis could not be reached" }}{{ end -}}
{{- end }}{{ end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}{{ fail "ingress.hosts: name at least one" }}{{ end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}{{ fail "httpRoute.parentRefs: name the Gateway" }}{{ end -}}
{{- end -}}
