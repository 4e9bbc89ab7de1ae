{{/*
The template of a pod with one process of Tympan's, of a dictionary with
  root, component, pool, values   as elsewhere; values are the component's
  args                            the words of the command
  health                          whether it has a health port
  image, grace, restart, serviceAccount, annotations
  files, at                       a ConfigMap, and where it is mounted
  workdir                         where it starts
*/}}
{{- define "tympan.pod" -}}
{{- $values := .values -}}
{{- $global := .root.Values -}}
{{- $tls := and $global.redis.tls.enabled $global.redis.tls.existingSecret -}}
metadata:
  labels:
    {{- toYaml (merge (include "tympan.matchLabels" . | fromYaml) ($values.podLabels | default dict) $global.commonLabels) | nindent 4 }}
  {{- with merge dict (.annotations | default dict) ($values.podAnnotations | default dict) $global.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .restart }}
  restartPolicy: {{ . }}
  {{- end }}
  serviceAccountName: {{ .serviceAccount | default (include "tympan.serviceAccountName" .root) }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    {{- toYaml $global.podSecurityContext | nindent 4 }}
  {{- include "tympan.pullSecrets" .root | nindent 2 | trimSuffix "\n  " }}
  {{- with .grace }}
  terminationGracePeriodSeconds: {{ . }}
  {{- end }}
  {{- range $field := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
  {{- with get $values $field }}
  {{- toYaml (dict $field .) | nindent 2 }}
  {{- end }}
  {{- end }}
  {{- include "tympan.spread" . | nindent 2 | trimSuffix "\n  " }}
  {{- with $values.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "tympan.image" (dict "root" .root "image" (.image | default $global.image)) | quote }}
      imagePullPolicy: {{ $global.image.pullPolicy }}
      args:
        {{- range .args }}
        - {{ . | quote }}
        {{- end }}
      {{- with .workdir }}
      workingDir: {{ . }}
      {{- end }}
      env:
        {{- include "tympan.redis.env" (dict "root" .root "own" $values.redisAuth) | nindent 8 }}
        {{- range $name, $value := $values.extraEnv }}
        - name: {{ $name }}
          {{- if kindIs "map" $value }}
          {{- toYaml $value | nindent 10 }}
          {{- else }}
          value: {{ include "tympan.number" $value | quote }}
          {{- end }}
        {{- end }}
      {{- with $values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if .health }}
      ports:
        - name: health
          containerPort: {{ $global.health.port }}
          protocol: TCP
      startupProbe:
        httpGet: {path: /startupz, port: health}
        {{- toYaml $values.probes.startup | nindent 8 }}
      livenessProbe:
        httpGet: {path: /livez, port: health}
        {{- toYaml $values.probes.liveness | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: health}
        {{- toYaml $values.probes.readiness | nindent 8 }}
      {{- end }}
      {{- with $values.lifecycle }}
      lifecycle:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      terminationMessagePolicy: FallbackToLogsOnError
      securityContext:
        {{- toYaml $global.containerSecurityContext | nindent 8 }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - name: tmp
          mountPath: /tmp
        {{- if $tls }}
        - name: redis-tls
          mountPath: /etc/tympan/tls
          readOnly: true
        {{- end }}
        {{- if .files }}
        - name: files
          mountPath: {{ .at }}
          readOnly: true
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $values.sidecars }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: tmp
      emptyDir: {}
    {{- if $tls }}
    - name: redis-tls
      secret:
        secretName: {{ $global.redis.tls.existingSecret }}
        defaultMode: 0440
    {{- end }}
    {{- with .files }}
    - name: files
      configMap:
        name: {{ . }}
    {{- end }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "tympan.pullSecrets" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "tympan.spread" -}}
{{- if .values.topologySpreadConstraints -}}
topologySpreadConstraints:
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else if (.values.topologySpread | default dict).keys -}}
topologySpreadConstraints:
  {{- range .values.topologySpread.keys }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ $.values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "tympan.matchLabels" $ | nindent 8 }}
  {{- end }}
{{- end -}}
{{- end -}}
