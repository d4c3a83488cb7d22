{{/* Pods that end by themselves: backup, restore, retention, migration, tests. */}}

{{/* Spec of a CronJob around a pod: {schedule, suspend}; the pod follows. */}}
{{- define "tastemaker.cron" -}}
schedule: {{ .schedule | quote }}
suspend: {{ .suspend }}
concurrencyPolicy: Forbid
startingDeadlineSeconds: 3600
successfulJobsHistoryLimit: 1
failedJobsHistoryLimit: 3
{{- end -}}

{{/* Puts a pod on the node that has MLflow's claim, which one node may mount. */}}
{{- define "tastemaker.besideMlflow" -}}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "tastemaker.selector" (dict "root" . "component" "mlflow") | nindent 12 }}
{{- end -}}

{{/* A step of backup or restore: {root, name, image, run: script and its arguments}. */}}
{{- define "tastemaker.step" -}}
{{- $values := .root.Values -}}
name: {{ .name }}
{{ include "tastemaker.imageOf" . }}
command: {{ concat (list "sh") .run | toJson }}
env:
  - {name: SCRIPTS, value: /etc/backup}
  - {name: BACKUPS, value: /backup}
  - {name: WORK, value: /run/backup}
  - {name: KEEP, value: {{ $values.backup.keep | quote }}}
  - {name: RESTORE, value: {{ $values.backup.restore | quote }}}
  - {name: VALKEY_HOST, value: {{ include "tastemaker.fullname" .root }}-valkey}
  - {name: HOME_FILES, value: {{ include "tastemaker.home" .root }}}
  - {name: BUNDLE_FILES, value: {{ include "tastemaker.bundles" .root }}}
  - {name: MLFLOW_FILES, value: /var/lib/mlflow}
  - {name: VALKEY_FILES, value: /data}
  {{- if $values.mlflow.enabled }}
  {{- include "tastemaker.mlflow.env" .root | nindent 2 }}
  {{- end }}
{{ include "tastemaker.security" . }}
resources: {{ $values.backup.resources | toJson }}
volumeMounts:
  - {name: scripts, mountPath: /etc/backup, readOnly: true}
  - {name: backup, mountPath: /backup}
  - {name: work, mountPath: /run/backup}
  {{- range .mounts }}
  - {{ . | toJson }}
  {{- end }}
  {{- if $values.mlflow.enabled }}
  {{- include "tastemaker.mlflow.mounts" .root | nindent 2 }}
  {{- else }}
  - {name: tmp, mountPath: /tmp}
  {{- end }}
{{- end -}}
