{{/* The two servers of the Redis protocol: of the state, and of the result cache. */}}

{{/* One user for each role. Feast's rows end in the project's name; Ray's keys begin with its own. */}}
{{- define "tastemaker.valkey.users" -}}
{{- $rows := printf "*tm_%s" (dig "catalogue" "default" .Values.config | replace "-" "_") -}}
user default off
user probe on nopass -@all +ping
user serving on @serving@ ~tm:* +@all -@admin -@dangerous
user stream on @stream@ ~tm:* ~{{ $rows }} +@all -@admin -@dangerous +info
user admin on @admin@ ~tm:* ~{{ $rows }} +@all -@admin -@dangerous +info +config|get
user features on @features@ %R~{{ $rows }} -@all +@read +@connection -@dangerous
user ray on @ray@ ~RAY* ~DUMMY +@all -@admin -@dangerous +info
user backup on @backup@ -@all +@connection +psync +sync +replconf
{{- end -}}

{{/* Configuration of one server: {root, component, part}. hz: a client that waits for the disk (WAITAOF) is looked after at that rate. */}}
{{- define "tastemaker.valkey.conf" -}}
{{- if .root.Values.valkey.tls.enabled -}}
port 0
tls-port 6379
tls-cert-file /run/tls/valkey/tls.crt
tls-key-file /run/tls/valkey/tls.key
tls-ca-cert-file /run/tls/valkey/ca.crt
tls-auth-clients no
{{- else -}}
port 6379
{{- end }}
aclfile /run/valkey/users.acl
dir /data
maxmemory {{ .part.maxMemory }}
save ""
{{- if eq .component "valkey" }}
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
hz 250
{{- else }}
appendonly no
maxmemory-policy allkeys-lfu
{{- end }}
{{- end -}}

{{/* Template of its pod: {root, component, part, conf}. */}}
{{- define "tastemaker.valkey.pod" -}}
{{- $tls := .root.Values.valkey.tls -}}
{{- $ping := concat (list "valkey-cli" "-e" "--user" "probe" "--pass" "none" "--no-auth-warning") (ternary (list "--tls" "--cacert" "/run/tls/valkey/ca.crt") list $tls.enabled) (list "ping") -}}
metadata:
  labels:
    {{- include "tastemaker.lastingLabels" . | nindent 4 }}
  annotations:
    checksum/config: {{ printf "%s%s" (include "tastemaker.valkey.conf" .) (include "tastemaker.valkey.users" .root) | sha256sum }}
spec:
  {{- include "tastemaker.pod" . | nindent 2 }}
  terminationGracePeriodSeconds: 60
  initContainers:
    - name: prepare
      {{- include "tastemaker.imageOf" (dict "root" .root "image" "valkey") | nindent 6 }}
      command: [sh, /etc/valkey/prepare.sh]
      {{- include "tastemaker.security" . | nindent 6 }}
      resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
      volumeMounts:
        - {name: config, mountPath: /etc/valkey, readOnly: true}
        - {name: secrets, mountPath: /run/secrets/valkey, readOnly: true}
        - {name: run, mountPath: /run/valkey}
        - {name: data, mountPath: /data}
  containers:
    - name: valkey
      {{- include "tastemaker.imageOf" (dict "root" .root "image" "valkey") | nindent 6 }}
      command: [valkey-server, /etc/valkey/{{ .conf }}]
      ports:
        - {name: redis, containerPort: 6379}
      startupProbe:
        exec: {command: {{ $ping | toJson }}}
        periodSeconds: 2
        failureThreshold: 300
      livenessProbe:
        tcpSocket: {port: redis}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        exec: {command: {{ $ping | toJson }}}
        periodSeconds: 5
        timeoutSeconds: 5
      {{- include "tastemaker.security" . | nindent 6 }}
      resources: {{ .part.resources | toJson }}
      volumeMounts:
        - {name: config, mountPath: /etc/valkey, readOnly: true}
        - {name: run, mountPath: /run/valkey}
        - {name: data, mountPath: /data}
        {{- if $tls.enabled }}
        - {name: tls, mountPath: /run/tls/valkey, readOnly: true}
        {{- end }}
  volumes:
    - {name: config, configMap: {name: {{ include "tastemaker.fullname" .root }}-valkey}}
    - {name: secrets, secret: {secretName: {{ include "tastemaker.valkeySecret" .root }}, defaultMode: 0440}}
    - {name: run, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
    {{- if eq .component "cache" }}
    - {name: data, emptyDir: {}}
    {{- end }}
    {{- if $tls.enabled }}
    - {name: tls, secret: {secretName: {{ required "valkey.tls.existingSecret is needed where valkey.tls.enabled is true" $tls.existingSecret }}, defaultMode: 0440}}
    {{- end }}
{{- end -}}

{{- define "tastemaker.valkey.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "tastemaker.metadata" . | nindent 2 }}
spec:
  selector:
    {{- include "tastemaker.selector" . | nindent 4 }}
  ports:
    - {name: redis, port: 6379, targetPort: redis}
{{- end -}}
