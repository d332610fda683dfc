{{- define "gw.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "gw.fullname" -}}
{{- $name := include "gw.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $full | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "gw.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "gw.fullname" .) "default") -}}
{{- end -}}

{{- define "gw.configMap" -}}
{{- .Values.existingConfigMap | default (include "gw.fullname" .) -}}
{{- end -}}

{{- define "gw.image" -}}
{{- $i := .Values.image -}}
{{- if $i.digest -}}{{ $i.repository }}@{{ $i.digest }}{{- else -}}{{ $i.repository }}:{{ $i.tag | default .Chart.AppVersion }}{{- end -}}
{{- end -}}

{{- define "gw.identity" -}}
app.kubernetes.io/name: {{ include "gw.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gw.selector" -}}
{{ include "gw.identity" . }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "gw.labels" -}}
{{ include "gw.identity" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "gw.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .uid }}
runAsGroup: {{ .uid }}
fsGroup: {{ .uid }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "gw.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* "yes" where state is shared through Redis. */ -}}
{{- define "gw.redis" -}}
{{- with .Values.redis }}{{ if or .url .existingSecret .builtin.enabled }}yes{{ end }}{{ end -}}
{{- end -}}

{{- /* "yes" where there is, or may be, more than one pod. */ -}}
{{- define "gw.several" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}yes{{ end -}}
{{- end -}}

{{- define "gw.gracePeriod" -}}
{{- .Values.terminationGracePeriodSeconds | default (add .Values.drain.delay .Values.drain.seconds 15) -}}
{{- end -}}

{{- /* "yes" where each pod has its own folder on a shared volume. */ -}}
{{- define "gw.sharedAudit" -}}
{{- with .Values.audit }}{{ if and .file (eq .volume.type "pvc") (eq .volume.accessMode "ReadWriteMany") }}yes{{ end }}{{ end -}}
{{- end -}}

{{- define "gw.config" -}}
routes.yaml: |
  {{- toYaml .Values.routes | nindent 2 }}
{{- with .Values.toolsLock }}
tools.lock: |
  {{- . | nindent 2 }}
{{- end }}
{{- range $name, $text := .Values.files }}
{{ $name }}: |
  {{- $text | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "gw.rule" -}}
{{- range . }}
- to:
    {{- toYaml .peers | nindent 4 }}
  ports:
    {{- range .ports }}
    - {port: {{ int . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end -}}
