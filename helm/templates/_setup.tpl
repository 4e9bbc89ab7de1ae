{{/* Whether the set-up is a hook: it cannot come before a Redis that the chart itself brings. */}}
{{- define "tympan.setup.isHook" -}}
{{- if and .Values.setup.useHelmHooks (not .Values.redis.embedded.enabled) }}yes{{ end -}}
{{- end -}}

{{/* Annotations of the hook with this weight, if it is one. */}}
{{- define "tympan.setup.hook" -}}
{{- if include "tympan.setup.isHook" .root -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
helm.sh/hook-output-log-policy: hook-failed
{{- end -}}
{{- end -}}

{{/* What tympan setup reads. */}}
{{- define "tympan.setup.file" -}}
{{- $setup := .Values.setup -}}
{{- $wanted := dict "servers" $setup.servers "grants" $setup.grants "pools" $setup.pools -}}
{{- if $setup.doctor.enabled -}}
{{- $doctor := dict "accept" $setup.doctor.accept -}}
{{- with $setup.doctor.durability }}{{ $_ := set $doctor "durability" . }}{{ end -}}
{{- $_ := set $wanted "doctor" $doctor -}}
{{- end -}}
{{- toPrettyJson $wanted -}}
{{- end -}}
