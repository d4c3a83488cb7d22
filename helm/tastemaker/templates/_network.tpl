{{/* The arrows of the platform: who calls whom, by component. Everything else is denied. */}}
{{- define "tastemaker.arrows" -}}
{{- range list "serving" "consumer" "admin" "training" "retention" "test" }}
- {from: {{ . }}, to: valkey, port: 6379}
- {from: {{ . }}, to: cache, port: 6379}
{{- end }}
{{- range list "admin" "training" "retention" "test" }}
- {from: {{ . }}, to: mlflow, port: 5000}
{{- end }}
{{- range list "mlflow" "migration" "retention" "backup" }}
- {from: {{ . }}, to: postgresql, port: 5432}
{{- end }}
- {from: backup, to: valkey, port: 6379}
- {from: test, to: serving, port: {{ include "tastemaker.gatewayPort" . }}}
- {from: test, to: admin, port: {{ include "tastemaker.adminPort" . }}}
{{- end -}}

{{/* Peers of one of our components: {root, component}. */}}
{{- define "tastemaker.peer" -}}
- podSelector:
    matchLabels:
      {{- include "tastemaker.selector" . | nindent 6 }}
{{- end -}}

{{/* Peers of address ranges. */}}
{{- define "tastemaker.cidrs" -}}
{{- range . }}
- ipBlock: {cidr: {{ . }}}
{{- end }}
{{- end -}}
