{{/* Pods of Ray clusters: one that serves, and those of the jobs. */}}

{{/* Ray's ports: control state, dashboard and jobs, clients, its agent's health. */}}
{{- define "tastemaker.ray.ports" -}}
- {name: gcs-server, containerPort: 6379}
- {name: dashboard, containerPort: 8265}
- {name: client, containerPort: 10001}
- {name: agent, containerPort: 52365}
{{- end -}}

{{/* The Serve mode that the embedded graph runs in (tastemaker.runtime), with logs to stderr. */}}
{{- define "tastemaker.ray.env" -}}
{{- $mode := dict
  "RAY_SERVE_THROUGHPUT_OPTIMIZED" "1"
  "RAY_SERVE_ENABLE_HA_PROXY" "1"
  "RAY_SERVE_LOG_TO_STDERR" "1"
  "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S" "0"
  "RAY_SERVE_HAPROXY_METRICS_ENABLED" "0"
  "RAY_SERVE_HAPROXY_NBTHREAD" "2"
  "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S" "60"
  "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER" "200ms"
  "RAY_SERVE_HAPROXY_HEALTH_CHECK_FASTINTER" "50ms"
  "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL" "3"
  "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S" "60"
  "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S" "30"
  "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S" "60"
  "RAY_USAGE_STATS_ENABLED" "0"
  "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO" "0"
  "RAY_TRAIN_V2_ENABLED" "1"
  "RAY_DEDUP_LOGS" "1"
  "RAY_LOG_TO_STDERR" "1"
-}}
{{- range $name, $value := $mode }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
- {name: TASTEMAKER_RAY__ADDRESS, value: auto}
{{- end -}}

{{/* Probes that ask Ray itself: {path, port}. */}}
{{- define "tastemaker.ray.probes" -}}
startupProbe:
  httpGet: {path: {{ .path }}, port: {{ .port }}}
  periodSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: {{ .path }}, port: {{ .port }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{/* The Ray container of a pod: {root, name, image, resources, env, role, keys, registry, shared, ports: further ones}. KubeRay writes its command. */}}
{{- define "tastemaker.ray.container" -}}
name: {{ .name }}
{{ include "tastemaker.imageOf" . }}
env:
  {{- include "tastemaker.ray.env" . | trim | nindent 2 }}
  {{- include "tastemaker.env" . | nindent 2 }}
  {{- with .env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with include "tastemaker.storageEnv" .root }}
{{ . }}
{{- end }}
{{ include "tastemaker.security" . }}
resources: {{ .resources | toJson }}
volumeMounts:
  {{- include "tastemaker.mounts" . | nindent 2 }}
{{- end -}}
