{{/* What a container that runs `tastemaker` is told, and where its files lie. */}}

{{- define "tastemaker.home" -}}/var/lib/tastemaker{{- end -}}
{{- define "tastemaker.bundles" -}}/var/lib/tastemaker-bundles{{- end -}}

{{/* Ports, of the settings or their defaults. */}}
{{- define "tastemaker.gatewayPort" -}}{{ dig "gateway" "port" 8700 .Values.config | int }}{{- end -}}
{{- define "tastemaker.adminPort" -}}{{ dig "gateway" "admin_port" 8701 .Values.config | int }}{{- end -}}
{{- define "tastemaker.exporterPort" -}}{{ dig "exporter" "port" 8702 .Values.config | int }}{{- end -}}

{{/* URL of MLflow; empty where there is none. */}}
{{- define "tastemaker.trackingUri" -}}
{{- if .Values.mlflow.enabled -}}http://{{ include "tastemaker.fullname" . }}-mlflow:5000
{{- else -}}{{ required "mlflow.external.trackingUri is needed where mlflow.enabled is false" .Values.mlflow.external.trackingUri }}
{{- end -}}
{{- end -}}

{{/* The settings file: the chart's addresses, over which `config` stands. */}}
{{- define "tastemaker.config" -}}
{{- $url := .Values.bundles.url | default (printf "file://%s" (include "tastemaker.bundles" .)) -}}
{{- $ours := dict
  "home" (include "tastemaker.home" .)
  "storage" (dict "url" $url)
  "registry" (dict "tracking_uri" (include "tastemaker.trackingUri" .))
  "gateway" (dict "host" "0.0.0.0" "admin_host" "0.0.0.0")
  "exporter" (dict "host" "0.0.0.0")
-}}
{{- mergeOverwrite $ours (deepCopy .Values.config) | toYaml -}}
{{- end -}}

{{/* URL of one of our two servers: {root, user, server: valkey or cache}. */}}
{{- define "tastemaker.stateUrl" -}}
{{- $tls := .root.Values.valkey.tls.enabled -}}
{{ ternary "rediss" "redis" $tls }}://{{ .user }}@{{ include "tastemaker.fullname" .root }}-{{ .server }}:6379/0{{ ternary "?ssl_ca_certs=/run/tls/valkey/ca.crt" "" $tls }}
{{- end -}}

{{/* Where the authorities of what is external are read, by each library in its own way. */}}
{{- define "tastemaker.trust.env" -}}
{{- if .Values.trust.existingSecret }}
{{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "AWS_CA_BUNDLE" "PGSSLROOTCERT" }}
- {name: {{ . }}, value: /run/tls/trust/ca.crt}
{{- end }}
{{- end }}
{{- end -}}
{{- define "tastemaker.trust.mount" -}}
{{- if .Values.trust.existingSecret }}
- {name: trust, mountPath: /run/tls/trust, readOnly: true}
{{- end }}
{{- end -}}
{{- define "tastemaker.trust.volume" -}}
{{- with .Values.trust.existingSecret }}
- {name: trust, secret: {secretName: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}}
{{- end }}
{{- end -}}

{{/* Environment: {root, role: serving, stream or admin; keys: whether it knows the API keys; registry: whether it uses MLflow}. */}}
{{- define "tastemaker.env" -}}
{{- $values := .root.Values -}}
- {name: TASTEMAKER_CONFIG, value: /etc/tastemaker/config.yaml}
- {name: HOME, value: /tmp}
- {name: PROMETHEUS_MULTIPROC_DIR, value: /var/run/tastemaker/metrics}
{{- if $values.valkey.enabled }}
- {name: TASTEMAKER_STATE__URL, value: {{ include "tastemaker.stateUrl" (dict "root" .root "user" .role "server" "valkey") | quote }}}
- {name: TASTEMAKER_STATE__PASSWORD_FILE, value: /run/secrets/tastemaker/state-password}
{{- else }}
- {name: TASTEMAKER_STATE__URL_FILE, value: /run/secrets/tastemaker/state-url}
{{- end }}
{{- if $values.cache.enabled }}
- {name: TASTEMAKER_STATE__CACHE_URL, value: {{ include "tastemaker.stateUrl" (dict "root" .root "user" .role "server" "cache") | quote }}}
{{- else if and (not $values.valkey.enabled) $values.valkey.external.keys.cache }}
- {name: TASTEMAKER_STATE__CACHE_URL_FILE, value: /run/secrets/tastemaker/cache-url}
{{- end }}
{{- if .keys }}
- {name: TASTEMAKER_GATEWAY__KEYS_FILE, value: /run/secrets/tastemaker/keys.yaml}
{{- end }}
{{- if .registry }}
{{- include "tastemaker.registryEnv" .root | nindent 0 }}
{{- end }}
{{- include "tastemaker.trust.env" .root }}
{{- end -}}

{{/* The account at MLflow, which its client reads. */}}
{{- define "tastemaker.registryEnv" -}}
{{- if or .Values.mlflow.enabled .Values.mlflow.existingSecret -}}
- name: MLFLOW_TRACKING_USERNAME
  valueFrom: {secretKeyRef: {name: {{ include "tastemaker.mlflowSecret" . }}, key: username}}
- name: MLFLOW_TRACKING_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "tastemaker.mlflowSecret" . }}, key: password}}
{{- end -}}
{{- end -}}

{{/* Environment of those that reach an object store. */}}
{{- define "tastemaker.storageEnv" -}}
{{- with .Values.bundles.existingSecret -}}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end -}}
{{- end -}}

{{/* Mounts: {root, shared: whether its home is the shared one}. */}}
{{- define "tastemaker.mounts" -}}
- {name: config, mountPath: /etc/tastemaker, readOnly: true}
- {name: secrets, mountPath: /run/secrets/tastemaker, readOnly: true}
- {name: tmp, mountPath: /tmp}
- {name: metrics, mountPath: /var/run/tastemaker/metrics}
{{- if .shared }}
- {name: home, mountPath: {{ include "tastemaker.home" .root }}, subPath: home}
{{- else }}
- {name: home, mountPath: {{ include "tastemaker.home" .root }}}
{{- end }}
{{- if not .root.Values.bundles.url }}
- {name: bundles, mountPath: {{ include "tastemaker.bundles" .root }}, subPath: bundles}
{{- end }}
{{- if and .root.Values.valkey.enabled .root.Values.valkey.tls.enabled }}
- {name: valkey-ca, mountPath: /run/tls/valkey, readOnly: true}
{{- end }}
{{- include "tastemaker.trust.mount" .root }}
{{- end -}}

{{/* Volumes of `mounts`: {root, role, keys, shared}. A claim's own lost+found would stand in a home: so folders of it are mounted. */}}
{{- define "tastemaker.volumes" -}}
{{- $values := .root.Values -}}
{{- $full := include "tastemaker.fullname" .root -}}
- {name: config, configMap: {name: {{ $full }}-config}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- if $values.valkey.enabled }}
      - secret: {name: {{ include "tastemaker.valkeySecret" .root }}, items: [{key: {{ .role }}, path: state-password}]}
      {{- else }}
      {{- $external := $values.valkey.external }}
      - secret:
          name: {{ required "valkey.external.existingSecret is needed where valkey.enabled is false" $external.existingSecret }}
          items:
            - {key: {{ index $external.keys .role }}, path: state-url}
            {{- if and $external.keys.cache (not $values.cache.enabled) }}
            - {key: {{ $external.keys.cache }}, path: cache-url}
            {{- end }}
      {{- end }}
      {{- if .keys }}
      - secret: {name: {{ include "tastemaker.apiKeys" .root }}, items: [{key: keys.yaml, path: keys.yaml}]}
      {{- end }}
- {name: tmp, emptyDir: {}}
- {name: metrics, emptyDir: {}}
{{- if .shared }}
- {name: home, persistentVolumeClaim: {claimName: {{ $values.home.existingClaim | default (printf "%s-home" $full) }}}}
{{- else }}
- {name: home, emptyDir: {}}
{{- end }}
{{- if not $values.bundles.url }}
- {name: bundles, persistentVolumeClaim: {claimName: {{ $values.bundles.existingClaim | default (printf "%s-bundles" $full) }}}}
{{- end }}
{{- if and $values.valkey.enabled $values.valkey.tls.enabled }}
- {name: valkey-ca, secret: {secretName: {{ $values.valkey.tls.existingSecret }}, items: [{key: ca.crt, path: ca.crt}]}}
{{- end }}
{{- include "tastemaker.trust.volume" .root }}
{{- end -}}

{{/* A whole container but for ports and probes: {root, name, image, args, role, keys, registry, shared, resources, env: further ones}. */}}
{{- define "tastemaker.container" -}}
name: {{ .name }}
{{ include "tastemaker.imageOf" . }}
command: [tastemaker]
args: {{ .args | toJson }}
env:
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
