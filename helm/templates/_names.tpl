{{- define "tympan.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for what is appended: labels hold 63 characters. */}}
{{- define "tympan.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "tympan.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tympan.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tympan.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tympan.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels that never change, by which the pods of one component are found. */}}
{{- define "tympan.matchLabels" -}}
{{- include "tympan.selectorLabels" .root }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .pool }}
tympan/pool: {{ . }}
{{- end }}
{{- end -}}

{{/*
What an object is called: (dict "root" $ "name" "reaper" "component" "reaper" "pool" "desk"), with
"labels" and "annotations" of its own. Without a name it is called as the release.
*/}}
{{- define "tympan.metadata" -}}
{{- $chart := printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- $labels := dict "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/managed-by" .root.Release.Service "app.kubernetes.io/part-of" "tympan" "helm.sh/chart" $chart -}}
{{- $annotations := merge dict (.annotations | default dict) .root.Values.commonAnnotations -}}
name: {{ include "tympan.fullname" .root }}{{ with .name }}-{{ . }}{{ end }}
labels:
  {{- toYaml (merge (include "tympan.matchLabels" . | fromYaml) $labels (.labels | default dict) .root.Values.commonLabels) | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "tympan.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "tympan.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* An image: (dict "root" $ "image" map). */}}
{{- define "tympan.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry -}}
{{- $name := .image.repository -}}
{{- with $registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The values of all pools of workers, by key, as JSON: workerDefaults with what differs. */}}
{{- define "tympan.workers" -}}
{{- $pools := dict -}}
{{- range $key, $own := .Values.workers -}}
{{- $pool := mustMergeOverwrite (deepCopy $.Values.workerDefaults) (deepCopy ($own | default dict)) -}}
{{- $_ := set $pool "pool" ($pool.pool | default $key) -}}
{{- $_ := set $pools $key $pool -}}
{{- end -}}
{{- toJson $pools -}}
{{- end -}}

{{/* A number as a program reads it: without an exponent. */}}
{{- define "tympan.number" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* The seconds from SIGTERM to SIGKILL of a pool. */}}
{{- define "tympan.grace" -}}
{{- .terminationGracePeriodSeconds | default (include "tympan.leastGrace" .) | int -}}
{{- end -}}
{{- define "tympan.leastGrace" -}}
{{- addf .drainSeconds .shutdownMarginSeconds | ceil | int -}}
{{- end -}}
