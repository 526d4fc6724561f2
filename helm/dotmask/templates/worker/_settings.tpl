{{- /* Context: list of root, the pool's name and the pool. */ -}}
{{- define "dotmask.worker.settings" -}}
{{- $root := index . 0 -}}
{{- $pool := index . 2 -}}
{{- with $pool -}}
DOTMASK_LISTEN: 0.0.0.0:9464
DOTMASK_POOL: {{ index $ 1 | quote }}
DOTMASK_MASKS: {{ .masks | quote }}
{{- if .checkpoint.uri }}
DOTMASK_CHECKPOINT: {{ .checkpoint.uri | quote }}
DOTMASK_CHECKPOINT_CACHE: /var/cache/dotmask
{{- else }}
DOTMASK_CHECKPOINT: {{ printf "/checkpoint/%s" .checkpoint.path | quote }}
{{- end }}
{{- with .checkpoint.sha256 }}
DOTMASK_CHECKPOINT_SHA256: {{ . | quote }}
{{- end }}
DOTMASK_DEVICE: {{ .device }}
DOTMASK_PRECISION: {{ .precision }}
DOTMASK_ACTIVATIONS: {{ .activations }}
{{- with .threads }}
DOTMASK_THREADS: {{ int64 . | quote }}
{{- end }}
DOTMASK_PREFETCH: {{ int64 .prefetch | quote }}
DOTMASK_LEASE_SECONDS: {{ int64 .leaseSeconds | quote }}
DOTMASK_HEARTBEAT_SECONDS: {{ int64 .heartbeatSeconds | quote }}
DOTMASK_DRAIN_SECONDS: {{ int64 .drainSeconds | quote }}
DOTMASK_MAX_JOB_SECONDS: {{ int64 .maxJobSeconds | quote }}
DOTMASK_MAX_IMAGE_BYTES: {{ int64 .maxImageBytes | quote }}
DOTMASK_MAX_IMAGE_PIXELS: {{ int64 .maxImagePixels | quote }}
DOTMASK_MAX_DECODED_BYTES: {{ int64 .maxDecodedBytes | quote }}
DOTMASK_MAX_DECOMPRESSION_RATIO: {{ int64 .maxDecompressionRatio | quote }}
{{- if .podDeletionCost }}
DOTMASK_POD_DELETION_COST: "true"
{{- end }}
{{- end }}
{{- with $root.Values.s3 }}
{{- with .endpoint }}
DOTMASK_S3_ENDPOINT: {{ . | quote }}
{{- end }}
DOTMASK_S3_PATH_STYLE: {{ .pathStyle | quote }}
AWS_REGION: {{ .region | quote }}
{{- end }}
{{ include "dotmask.settings.common" (list $root "worker") }}
{{- with $root.Values.otel }}
{{- if .endpoint }}
OTEL_TRACES_SAMPLER: {{ .sampler }}
OTEL_TRACES_SAMPLER_ARG: {{ .samplerArg | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Not empty where a pool's workers mark their pods. */ -}}
{{- define "dotmask.worker.hasDeletionCost" -}}
{{- range $name, $_ := .Values.pools }}
{{- $pool := include "dotmask.pool" (list $ $name) | fromJson }}
{{- if $pool.podDeletionCost }}true{{ end }}
{{- end }}
{{- end }}
