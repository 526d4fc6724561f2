{{- /* A failed Job stays for its logs to be read, and goes before the next one. Context: the weight. */ -}}
{{- define "dotmask.migration.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
