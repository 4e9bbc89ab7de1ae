{{/* What one value says of another; what each may be is in values.schema.json. */}}
{{- define "tympan.validate" -}}
{{- $redis := .Values.redis -}}
{{- if $redis.embedded.enabled -}}
{{- if or $redis.addresses (ne $redis.mode "standalone") $redis.tls.enabled -}}
{{- fail "redis.embedded is a Redis of its own, without TLS: leave out redis.addresses, redis.mode and redis.tls, or set redis.embedded.enabled=false" -}}
{{- end -}}
{{- if $redis.auth.username -}}
{{- fail "redis.embedded has Redis's user default only: leave out redis.auth.username, or set redis.embedded.enabled=false" -}}
{{- end -}}
{{- else -}}
{{- if not $redis.addresses -}}
{{- fail "redis.addresses is empty: name your Redis, as in redis.addresses={redis:6379}, or set redis.embedded.enabled=true to try Tympan out" -}}
{{- end -}}
{{- if and (eq $redis.mode "standalone") (gt (len $redis.addresses) 1) -}}
{{- fail "redis.addresses names several hosts: set redis.mode to sentinel or cluster, or name one" -}}
{{- end -}}
{{- if and (eq $redis.mode "cluster") (ne (int $redis.db) 0) -}}
{{- fail "redis.db is for standalone and sentinel: a Cluster has database 0 only; leave it out" -}}
{{- end -}}
{{- end -}}
{{- if and $redis.tls.existingSecret (not $redis.tls.enabled) -}}
{{- fail "redis.tls.existingSecret is given and redis.tls.enabled is false: set it to true, or leave the secret out" -}}
{{- end -}}
{{- if ne (empty $redis.tls.certKey) (empty $redis.tls.keyKey) -}}
{{- fail "redis.tls.certKey and redis.tls.keyKey belong together: give both, or neither" -}}
{{- end -}}
{{- if and $redis.tls.certKey (not $redis.tls.existingSecret) -}}
{{- fail "redis.tls.certKey is a key of redis.tls.existingSecret, which is empty: name the secret" -}}
{{- end -}}
{{- include "tympan.validate.auth" (dict "root" $ "own" dict "where" "redis.auth") -}}
{{- include "tympan.validate.secrets" . -}}
{{- include "tympan.validate.auth" (dict "root" $ "own" .Values.reaper.redisAuth "where" "reaper.redisAuth") -}}
{{- include "tympan.validate.auth" (dict "root" $ "own" .Values.setup.redisAuth "where" "setup.redisAuth") -}}
{{- include "tympan.validate.auth" (dict "root" $ "own" .Values.tests.redisAuth "where" "tests.redisAuth") -}}
{{- if and .Values.metrics.prometheusRule.enabled (not .Values.metrics.podMonitor.enabled) (not .Values.metrics.prometheusRule.selector) -}}
{{- fail "metrics.prometheusRule.enabled needs metrics of this release: set metrics.podMonitor.enabled=true, or metrics.prometheusRule.selector to the labels by which you scrape it" -}}
{{- end -}}
{{- range $key, $pool := include "tympan.workers" . | fromJson -}}
{{- include "tympan.validate.worker" (dict "root" $ "key" $key "pool" $pool) -}}
{{- include "tympan.validate.auth" (dict "root" $ "own" $pool.redisAuth "where" (printf "workers.%s.redisAuth" $key)) -}}
{{- end -}}
{{- end -}}

{{/* The set-up hook runs before anything else is made; where a cluster is asked, it says what is there. */}}
{{- define "tympan.validate.secrets" -}}
{{- if and .Values.setup.enabled (include "tympan.setup.isHook" .) -}}
{{- $auth := include "tympan.redis.auth" (dict "root" $ "own" .Values.setup.redisAuth) | fromJson -}}
{{- $tls := ternary .Values.redis.tls.existingSecret "" .Values.redis.tls.enabled -}}
{{- range $where, $name := dict "redis.auth.existingSecret" $auth.existingSecret "redis.tls.existingSecret" $tls -}}
{{- if and $name (not (lookup "v1" "Secret" $.Release.Namespace $name)) (hasKey (lookup "v1" "Secret" $.Release.Namespace "") "items") -}}
{{- fail (printf "%s is %s, and there is no such secret in namespace %s: make it first, or name the one that has the credential" $where $name $.Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tympan.validate.auth" -}}
{{- $auth := include "tympan.redis.auth" . | fromJson -}}
{{- if not $auth.existingSecret -}}
{{- range $key := list "username" "usernameKey" "sentinelUsername" "sentinelPasswordKey" -}}
{{- if get $auth $key -}}
{{- fail (printf "%s.%s is given and no secret is: name the one with the password as %s.existingSecret" $.where $key $.where) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $auth.username $auth.usernameKey -}}
{{- fail (printf "%s.username and %s.usernameKey exclude each other: leave one of them out" .where .where) -}}
{{- end -}}
{{- if and $auth.sentinelUsername (not $auth.sentinelPasswordKey) -}}
{{- fail (printf "%s.sentinelUsername needs a password: set %s.sentinelPasswordKey" .where .where) -}}
{{- end -}}
{{- end -}}

{{- define "tympan.validate.worker" -}}
{{- $pool := .pool -}}
{{- $where := printf "workers.%s" .key -}}
{{- $scaling := $pool.autoscaling -}}
{{- if has .key (list "reaper" "setup" "redis" "dashboard" "test") -}}
{{- fail (printf "%s: the chart has a %s of its own; call the pool something else, and give its name as %s.pool" $where .key $where) -}}
{{- end -}}
{{- if not $pool.target -}}
{{- fail (printf "%s.target is empty: name the worker, as in %s.target=desk:worker" $where $where) -}}
{{- end -}}
{{- if and $pool.handlers.files $pool.handlers.existingConfigMap -}}
{{- fail (printf "%s.handlers.files and %s.handlers.existingConfigMap exclude each other: leave one of them out" $where $where) -}}
{{- end -}}
{{- if and $pool.image.repository (not $pool.image.tag) (not $pool.image.digest) -}}
{{- fail (printf "%s.image.repository is another image than Tympan's: give its tag or digest, too" $where) -}}
{{- end -}}
{{- $least := include "tympan.leastGrace" $pool | int -}}
{{- with $pool.terminationGracePeriodSeconds -}}
{{- if lt (int .) $least -}}
{{- fail (printf "%s.terminationGracePeriodSeconds is %d, and drainSeconds with shutdownMarginSeconds are %d: raise it to that, leave it out, or shorten the drain" $where (int .) $least) -}}
{{- end -}}
{{- end -}}
{{- if and $scaling.hpa.enabled $scaling.keda.enabled -}}
{{- fail (printf "%s.autoscaling.hpa and %s.autoscaling.keda exclude each other: enable one of them" $where $where) -}}
{{- end -}}
{{- if or $scaling.hpa.enabled $scaling.keda.enabled -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "%s.autoscaling.minReplicas is above maxReplicas: lower it, or raise maxReplicas" $where) -}}
{{- end -}}
{{- end -}}
{{- if and $scaling.hpa.enabled (lt (int $scaling.minReplicas) 1) -}}
{{- fail (printf "%s.autoscaling.minReplicas is 0, to which only KEDA scales: set it to 1, or enable keda in place of hpa" $where) -}}
{{- end -}}
{{- if and $scaling.hpa.enabled (not (or $scaling.hpa.cpuUtilization $scaling.hpa.backlogMetric $scaling.hpa.metrics)) -}}
{{- fail (printf "%s.autoscaling.hpa has nothing to scale by: set cpuUtilization, backlogMetric or metrics" $where) -}}
{{- end -}}
{{- if $scaling.keda.enabled -}}
{{- if not (or .root.Values.reaper.enabled $scaling.keda.backlogUrl) -}}
{{- fail (printf "%s.autoscaling.keda asks the reaper for the backlog: set reaper.enabled=true, or name another one's as %s.autoscaling.keda.backlogUrl" $where $where) -}}
{{- end -}}
{{- if eq (int $scaling.minReplicas) 0 -}}
{{- $made := list -}}
{{- range .root.Values.setup.pools }}{{ $made = append $made (lower .pool) }}{{ end -}}
{{- if not (and .root.Values.setup.enabled (has (lower $pool.pool) $made)) -}}
{{- fail (printf "%s.autoscaling.minReplicas is 0, and a pool that no replica ever served collects nothing: have it made, with pool: %s under setup.pools, or set minReplicas to 1" $where $pool.pool) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
