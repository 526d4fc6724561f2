{{- define "dotmask.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Of at most 52 characters: with "-dispatcher" it is the name of a Service, which may have 63. */ -}}
{{- define "dotmask.fullname" -}}
{{- $name := include "dotmask.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- .Values.fullnameOverride | default $full | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- /* Context: list of root and component. */ -}}
{{- define "dotmask.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "dotmask.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* Context: list of root and component. */ -}}
{{- define "dotmask.labels" -}}
{{- $root := index . 0 -}}
{{ include "dotmask.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "dotmask.dispatcher.name" -}}
{{- include "dotmask.fullname" . }}-dispatcher
{{- end }}

{{- define "dotmask.dispatcher.metricsName" -}}
{{- include "dotmask.fullname" . }}-metrics
{{- end }}

{{- define "dotmask.dispatcher.url" -}}
http://{{ include "dotmask.dispatcher.name" . }}.{{ .Release.Namespace }}.svc:{{ int64 .Values.dispatcher.service.port }}
{{- end }}

{{- define "dotmask.dispatcher.pools" -}}
{{- concat (keys .Values.pools) .Values.dispatcher.extraPools | uniq | sortAlpha | join "," }}
{{- end }}

{{- define "dotmask.dispatcher.serviceAccountName" -}}
{{- with .Values.dispatcher.serviceAccount -}}
{{- .name | default (ternary (include "dotmask.dispatcher.name" $) "default" .create) }}
{{- end }}
{{- end }}

{{- define "dotmask.worker.serviceAccountName" -}}
{{- with .Values.worker.serviceAccount -}}
{{- .name | default (ternary (printf "%s-worker" (include "dotmask.fullname" $)) "default" .create) }}
{{- end }}
{{- end }}

{{- /* Context: list of root and the pool's name. */ -}}
{{- define "dotmask.pool.fullname" -}}
{{- printf "%s-worker-%s" (include "dotmask.fullname" (index . 0)) (index . 1) }}
{{- end }}

{{- /* The pool over poolDefaults, as JSON. Context: list of root and the pool's name. */ -}}
{{- define "dotmask.pool" -}}
{{- $values := (index . 0).Values -}}
{{- mergeOverwrite (deepCopy $values.poolDefaults) (get $values.pools (index . 1) | default dict | deepCopy) | toJson }}
{{- end }}

{{- /* The pool's image over image.worker, as JSON: another repository or tag leaves the digest behind. Context: list of root and pool. */ -}}
{{- define "dotmask.pool.image" -}}
{{- $base := (index . 0).Values.image.worker -}}
{{- $own := (index . 1).image -}}
{{- if or $own.repository $own.tag }}{{ $base = omit $base "digest" }}{{ end -}}
{{- mergeOverwrite (deepCopy $base) $own | toJson }}
{{- end }}

{{- /* Context: list of root and an image's values. */ -}}
{{- define "dotmask.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* What every pod has. The images' user is 65532; fsGroup lets it write to volumes. */ -}}
{{- define "dotmask.podBasics" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "dotmask.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- /* Where a pod may run. Context: the values that say so. */ -}}
{{- define "dotmask.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "dotmask.env.postgres" -}}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.postgres.existingSecret }}
      key: {{ .Values.postgres.key }}
{{- end }}

{{- define "dotmask.env.rabbitmq" -}}
- name: AMQP_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.rabbitmq.existingSecret }}
      key: {{ .Values.rabbitmq.key }}
{{- end }}

{{- /* Where the authorities' certificates lie in a container. */ -}}
{{- define "dotmask.authorities.file" -}}
/etc/dotmask/authorities/{{ .Values.authorities.key }}
{{- end }}

{{- define "dotmask.authorities.mount" -}}
{{- if .Values.authorities.existingConfigMap }}
- name: authorities
  mountPath: /etc/dotmask/authorities
  readOnly: true
{{- end }}
{{- end }}

{{- define "dotmask.authorities.volume" -}}
{{- with .Values.authorities }}
{{- if .existingConfigMap }}
- name: authorities
  configMap:
    name: {{ .existingConfigMap }}
    items:
      - key: {{ .key }}
        path: {{ .key }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Context: list of root and component. */ -}}
{{- define "dotmask.settings.common" -}}
{{- $values := (index . 0).Values -}}
DOTMASK_LOG: {{ $values.log.filter | quote }}
DOTMASK_LOG_FORMAT: {{ $values.log.format }}
{{- if $values.authorities.existingConfigMap }}
DOTMASK_CA_FILE: {{ include "dotmask.authorities.file" (index . 0) | quote }}
{{- end }}
{{- with $values.otel.endpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ . | quote }}
OTEL_SERVICE_NAME: dotmask-{{ index $ 1 }}
{{- end }}
{{- end }}

{{- /* One rule of egress. Context: list of values with ports and to, and of protocols. */ -}}
{{- define "dotmask.egress" -}}
{{- $egress := index . 0 -}}
- ports:
    {{- range $port := $egress.ports }}
    {{- range $protocol := index $ 1 }}
    - port: {{ int64 $port }}
      protocol: {{ $protocol }}
    {{- end }}
    {{- end }}
  {{- with $egress.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "dotmask.egress.dns" -}}
{{ include "dotmask.egress" (list .Values.networkPolicy.egress.dns (list "UDP" "TCP")) }}
{{- end }}

{{- define "dotmask.egress.postgres" -}}
{{ include "dotmask.egress" (list .Values.networkPolicy.egress.postgres (list "TCP")) }}
{{- end }}

{{- define "dotmask.egress.rabbitmq" -}}
{{ include "dotmask.egress" (list .Values.networkPolicy.egress.rabbitmq (list "TCP")) }}
{{- end }}

{{- /* The egress values and the port of the URL, or of its scheme, beside their own. Context: list of egress values and a URL, which may be empty. */ -}}
{{- define "dotmask.egress.withUrl" -}}
{{- $egress := index . 0 -}}
{{- $ports := list }}
{{- range $egress.ports }}{{ $ports = append $ports (int64 .) }}{{ end }}
{{- with index . 1 }}
{{- $url := urlParse . }}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary 443 80 (eq $url.scheme "https")) }}
{{- $ports = append $ports (int64 $port) }}
{{- end }}
{{- include "dotmask.egress" (list (dict "ports" (uniq $ports) "to" $egress.to) (list "TCP")) }}
{{- end }}

{{- define "dotmask.egress.otlp" -}}
{{- if .Values.otel.endpoint -}}
{{ include "dotmask.egress.withUrl" (list .Values.networkPolicy.egress.otlp .Values.otel.endpoint) }}
{{- end }}
{{- end }}
