{{- define "dotmask.dispatcher.settings" -}}
{{- with .Values.dispatcher -}}
DOTMASK_LISTEN: 0.0.0.0:8080
DOTMASK_METRICS_LISTEN: 0.0.0.0:9463
DOTMASK_POOLS: {{ include "dotmask.dispatcher.pools" $ | quote }}
DOTMASK_POSTGRES_CONNECTIONS: {{ int64 .postgresConnections | quote }}
DOTMASK_MAX_MANIFEST_BYTES: {{ int64 .maxManifestBytes | quote }}
DOTMASK_MAX_MANIFEST_LINES: {{ int64 .maxManifestLines | quote }}
DOTMASK_MAX_OBJECTS: {{ int64 .maxObjects | quote }}
DOTMASK_MAX_POINTS: {{ int64 .maxPoints | quote }}
DOTMASK_REAP_SECONDS: {{ int64 .reapSeconds | quote }}
DOTMASK_RECONCILE_SECONDS: {{ int64 .reconcileSeconds | quote }}
DOTMASK_AGEING_SECONDS: {{ int64 .ageingSeconds | quote }}
{{ include "dotmask.settings.common" (list $ "dispatcher") }}
{{- end }}
{{- end }}
