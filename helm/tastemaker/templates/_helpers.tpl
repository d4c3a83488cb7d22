{{/* Names, labels, images and what every pod must have. Arguments beyond the root come as a dict with `root`. */}}

{{/* Name of the chart in labels. */}}
{{- define "tastemaker.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Beginning of all names: release and chart, once where they agree; short enough for KubeRay's suffixes. */}}
{{- define "tastemaker.fullname" -}}
{{- $name := include "tastemaker.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $full | trunc 26 | trimSuffix "-" -}}
{{- end -}}

{{/* What selectors select by: {root, component}. */}}
{{- define "tastemaker.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object: {root, component}. */}}
{{- define "tastemaker.labels" -}}
{{ include "tastemaker.selector" . }}
app.kubernetes.io/name: {{ include "tastemaker.name" .root }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* Labels of the pods of servers that are not ours: a newer chart alone does not restart them. {root, component} */}}
{{- define "tastemaker.lastingLabels" -}}
{{ include "tastemaker.selector" . }}
app.kubernetes.io/name: {{ include "tastemaker.name" .root }}
{{- end -}}

{{/* Metadata of an object: {root, component, name}; the name without its beginning. */}}
{{- define "tastemaker.metadata" -}}
name: {{ include "tastemaker.fullname" .root }}-{{ .name | default .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "tastemaker.labels" . | nindent 2 }}
{{- end -}}

{{/* Image with registry, and digest or tag: {root, image: its name in `images`}. */}}
{{- define "tastemaker.image" -}}
{{- $image := index .root.Values.images .image -}}
{{- $path := $image.repository -}}
{{- with .root.Values.images.registry -}}{{- $path = printf "%s/%s" . (regexReplaceAll "^[^/]+[.:][^/]*/" $path "") -}}{{- end -}}
{{- if $image.digest -}}{{ $path }}@{{ $image.digest }}{{- else -}}{{ $path }}:{{ $image.tag | default .root.Chart.AppVersion }}{{- end -}}
{{- end -}}

{{/* Image and pull policy of a container: {root, image}. */}}
{{- define "tastemaker.imageOf" -}}
image: {{ include "tastemaker.image" . }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
{{- end -}}

{{/* Security of a pod: {user}; ours is 10001. */}}
{{- define "tastemaker.podSecurity" -}}
{{- $user := .user | default 10001 -}}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $user }}
  runAsGroup: {{ $user }}
  fsGroup: {{ $user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Security of a container. */}}
{{- define "tastemaker.security" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where and how a pod runs: {root, part: of the values, account, token, user, name: of the account}. */}}
{{- define "tastemaker.pod" -}}
serviceAccountName: {{ include "tastemaker.fullname" .root }}-{{ .account | default "plain" }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .part.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{ include "tastemaker.podSecurity" . }}
{{- end -}}

{{/* Spreads a component's pods over nodes and zones: {root, component}. */}}
{{- define "tastemaker.spread" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "tastemaker.selector" $ | nindent 8 }}
  {{- end }}
{{- end -}}

{{/* A checksum that rolls pods when the config changes, or when a Secret is said to have changed. */}}
{{- define "tastemaker.checksum" -}}
checksum/config: {{ printf "%s%s" (include "tastemaker.config" .) (.Values.secretsRevision | default "") | sha256sum }}
{{- end -}}

{{/* A random text of a Secret of ours, the same over upgrades: {root, secret, key}. */}}
{{- define "tastemaker.random" -}}
{{- $old := lookup "v1" "Secret" .root.Release.Namespace .secret | default dict -}}
{{- $kept := index ($old.data | default dict) .key | default "" -}}
{{- if $kept -}}{{ $kept | b64dec }}{{- else -}}{{ randAlphaNum 40 }}{{- end -}}
{{- end -}}

{{/* Name of a Secret, the given or ours: {root, given, name}. */}}
{{- define "tastemaker.secret" -}}
{{- .given | default (printf "%s-%s" (include "tastemaker.fullname" .root) .name) -}}
{{- end -}}
{{- define "tastemaker.apiKeys" -}}
{{- include "tastemaker.secret" (dict "root" . "given" .Values.apiKeys.existingSecret "name" "api-keys") -}}
{{- end -}}
{{- define "tastemaker.valkeySecret" -}}
{{- include "tastemaker.secret" (dict "root" . "given" .Values.valkey.existingSecret "name" "valkey") -}}
{{- end -}}
{{- define "tastemaker.mlflowSecret" -}}
{{- include "tastemaker.secret" (dict "root" . "given" .Values.mlflow.existingSecret "name" "mlflow") -}}
{{- end -}}
{{- define "tastemaker.postgresqlSecret" -}}
{{- include "tastemaker.secret" (dict "root" . "given" .Values.postgresql.existingSecret "name" "postgresql") -}}
{{- end -}}

{{/* Refuses values that do not go together, which the schema cannot say. */}}
{{- define "tastemaker.checks" -}}
{{- if and .Values.cache.enabled (not .Values.valkey.enabled) -}}
{{- fail "cache.enabled is true and valkey.enabled false: the cache's users are those of valkey; give valkey.external.keys.cache" -}}
{{- end -}}
{{- if and .Values.postgresql.enabled .Values.postgresql.external.enabled -}}
{{- fail "postgresql.enabled and postgresql.external.enabled are both true: MLflow uses one; set one of them to false" -}}
{{- end -}}
{{- if .Values.postgresql.external.enabled -}}
{{- $_ := required "mlflow.existingSecret is needed where postgresql.external.enabled is true" .Values.mlflow.existingSecret -}}
{{- end -}}
{{- if and .Values.valkey.enabled .Values.valkey.tls.enabled -}}
{{- $_ := required "valkey.tls.existingSecret is needed where valkey.tls.enabled is true" .Values.valkey.tls.existingSecret -}}
{{- end -}}
{{- end -}}
