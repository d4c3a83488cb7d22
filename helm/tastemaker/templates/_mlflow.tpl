{{/* What MLflow's server, its migration and its backups share: where its tables lie. */}}

{{/* Environment: MLFLOW_BACKEND_STORE_URI and what it is made of. */}}
{{- define "tastemaker.mlflow.env" -}}
- {name: HOME, value: /tmp}
- {name: MLFLOW_DISABLE_TELEMETRY, value: "true"}
{{- if .Values.postgresql.enabled }}
{{- $tls := ternary "?sslmode=verify-full&sslrootcert=/run/tls/postgresql/ca.crt" "" .Values.postgresql.tls.enabled }}
- name: POSTGRESQL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "tastemaker.postgresqlSecret" . }}, key: password}}
- {name: MLFLOW_BACKEND_STORE_URI, value: "postgresql://mlflow:$(POSTGRESQL_PASSWORD)@{{ include "tastemaker.fullname" . }}-postgresql:5432/mlflow{{ $tls }}"}
{{- else if .Values.postgresql.external.enabled }}
- name: MLFLOW_BACKEND_STORE_URI
  valueFrom: {secretKeyRef: {name: {{ include "tastemaker.mlflowSecret" . }}, key: backend-store-uri}}
{{- else }}
- {name: MLFLOW_BACKEND_STORE_URI, value: "sqlite:////var/lib/mlflow/mlflow.db"}
{{- end }}
{{- include "tastemaker.trust.env" . }}
{{- end -}}

{{- define "tastemaker.mlflow.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: data, mountPath: /var/lib/mlflow}
{{- if and .Values.postgresql.enabled .Values.postgresql.tls.enabled }}
- {name: postgresql-ca, mountPath: /run/tls/postgresql, readOnly: true}
{{- end }}
{{- include "tastemaker.trust.mount" . }}
{{- end -}}

{{- define "tastemaker.mlflow.volumes" -}}
- {name: tmp, emptyDir: {}}
{{ include "tastemaker.mlflow.ownVolumes" . }}
{{- include "tastemaker.trust.volume" . }}
{{- end -}}

{{- define "tastemaker.mlflow.ownVolumes" -}}
- {name: data, persistentVolumeClaim: {claimName: {{ include "tastemaker.fullname" . }}-mlflow}}
{{- if and .Values.postgresql.enabled .Values.postgresql.tls.enabled }}
- {name: postgresql-ca, secret: {secretName: {{ .Values.postgresql.tls.existingSecret }}, items: [{key: ca.crt, path: ca.crt}]}}
{{- end }}
{{- end -}}
