{{/* Where Redis is, without any secret. */}}
{{- define "tympan.redis.url" -}}
{{- $redis := .Values.redis -}}
{{- $scheme := ternary "rediss" "redis" $redis.tls.enabled -}}
{{- $options := list -}}
{{- if and $redis.tls.enabled $redis.tls.existingSecret -}}
{{- range $option, $key := dict "ssl_ca_certs" $redis.tls.caKey "ssl_certfile" $redis.tls.certKey "ssl_keyfile" $redis.tls.keyKey -}}
{{- with $key }}{{ $options = append $options (printf "%s=/etc/tympan/tls/%s" $option .) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $form := dict "standalone" "" "sentinel" "+sentinel" "cluster" "+cluster" -}}
{{- $hosts := join "," $redis.addresses -}}
{{- if $redis.embedded.enabled }}{{ $hosts = printf "%s-redis:6379" (include "tympan.fullname" .) }}{{ end -}}
{{- $path := ternary "" (printf "/%d" (int $redis.db)) (eq $redis.mode "cluster") -}}
{{- if eq $redis.mode "sentinel" }}{{ $path = printf "/%s%s" $redis.sentinel.master $path }}{{ end -}}
{{- $scheme }}{{ get $form $redis.mode }}://{{ $hosts }}{{ $path }}{{ if $options }}?{{ join "&" $options }}{{ end -}}
{{- end -}}

{{/* Ports of Redis and of Sentinels, as a JSON list. */}}
{{- define "tympan.redis.ports" -}}
{{- $redis := .Values.redis -}}
{{- $ports := list -}}
{{- if $redis.embedded.enabled -}}
{{- $ports = list 6379 -}}
{{- else -}}
{{- $usual := ternary 26379 6379 (eq $redis.mode "sentinel") -}}
{{- range $redis.addresses -}}
{{- $port := regexFind ":[0-9]+$" . | trimPrefix ":" -}}
{{- $ports = append $ports (ternary (int $port) $usual (ne $port "")) -}}
{{- end -}}
{{- if eq $redis.mode "sentinel" }}{{ $ports = concat $ports $redis.sentinel.redisPorts }}{{ end -}}
{{- end -}}
{{- $found := list -}}
{{- range concat $ports .Values.networkPolicy.extraRedisPorts }}{{ $found = append $found (int .) }}{{ end -}}
{{- toJson (uniq $found) -}}
{{- end -}}

{{/* The credential of a component: redis.auth with what differs. */}}
{{- define "tympan.redis.auth" -}}
{{- toJson (mustMergeOverwrite (deepCopy .root.Values.redis.auth) (deepCopy (.own | default dict))) -}}
{{- end -}}

{{- define "tympan.secretEnv" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key }}
{{- end -}}

{{/* What every process reads: (dict "root" $ "own" .redisAuth). */}}
{{- define "tympan.redis.env" -}}
{{- $auth := include "tympan.redis.auth" . | fromJson -}}
- name: TYMPAN_URL
  value: {{ include "tympan.redis.url" .root | quote }}
{{- if and $auth.existingSecret $auth.usernameKey }}
{{ include "tympan.secretEnv" (dict "name" "TYMPAN_USERNAME" "secret" $auth.existingSecret "key" $auth.usernameKey) }}
{{- else if $auth.username }}
- name: TYMPAN_USERNAME
  value: {{ $auth.username | quote }}
{{- end }}
{{- if $auth.existingSecret }}
{{ include "tympan.secretEnv" (dict "name" "TYMPAN_PASSWORD" "secret" $auth.existingSecret "key" $auth.passwordKey) }}
{{- end }}
{{- if eq .root.Values.redis.mode "sentinel" }}
{{- with $auth.sentinelUsername }}
- name: TYMPAN_SENTINEL_USERNAME
  value: {{ . | quote }}
{{- end }}
{{- if and $auth.existingSecret $auth.sentinelPasswordKey }}
{{ include "tympan.secretEnv" (dict "name" "TYMPAN_SENTINEL_PASSWORD" "secret" $auth.existingSecret "key" $auth.sentinelPasswordKey) }}
{{- end }}
{{- end }}
{{- range $name, $value := .root.Values.settings }}
- name: TYMPAN_SET_{{ upper $name }}
  value: {{ include "tympan.number" $value | quote }}
{{- end }}
{{- end -}}
