{{/* The RayJob of one job, as a dict's YAML: {root, name, args}. Every start makes a Ray cluster, which ends with it. */}}
{{- define "tastemaker.job" -}}
{{- $jobs := .root.Values.jobs -}}
{{- $common := dict "root" .root "component" "training" "part" $jobs "image" "train" "env" $jobs.env "role" "admin" "keys" false "registry" true "shared" true "resources" $jobs.resources -}}
apiVersion: ray.io/v1
kind: RayJob
metadata:
  {{- include "tastemaker.metadata" (merge (dict "name" .name) $common) | nindent 2 }}
    tastemaker.io/job: {{ .name }}
spec:
  entrypoint: tastemaker {{ join " " .args }}
  submissionMode: K8sJobMode
  backoffLimit: 0
  submitterConfig: {backoffLimit: 1}
  shutdownAfterJobFinishes: true
  ttlSecondsAfterFinished: {{ $jobs.ttlSecondsAfterFinished }}
  activeDeadlineSeconds: {{ $jobs.activeDeadlineSeconds }}
  submitterPodTemplate:
    metadata:
      labels:
        {{- include "tastemaker.selector" $common | nindent 8 }}
    spec:
      {{- include "tastemaker.pod" (set (omit $common "part") "part" (omit $jobs "runtimeClassName")) | nindent 6 }}
      restartPolicy: Never
      containers:
        - name: ray-job-submitter
          {{- include "tastemaker.imageOf" $common | nindent 10 }}
          env:
            - {name: HOME, value: /tmp}
          {{- include "tastemaker.security" . | nindent 10 }}
          resources: {requests: {cpu: 100m, memory: 256Mi}, limits: {memory: 1Gi}}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
      volumes:
        - {name: tmp, emptyDir: {}}
  rayClusterSpec:
    rayVersion: {{ .root.Values.serving.rayVersion | quote }}
    authOptions: {mode: token}
    headGroupSpec:
      rayStartParams: {dashboard-host: 0.0.0.0, num-cpus: {{ $jobs.numCpus | quote }}}
      template:
        metadata:
          labels:
            {{- include "tastemaker.selector" $common | nindent 12 }}
        spec:
          {{- include "tastemaker.pod" $common | nindent 10 }}
          containers:
            - {{- include "tastemaker.ray.container" (merge (dict "name" "ray-head") $common) | nindent 14 }}
              ports:
                {{- include "tastemaker.ray.ports" . | nindent 16 }}
              {{- include "tastemaker.ray.probes" (dict "path" "/api/gcs_healthz" "port" "dashboard") | nindent 14 }}
              readinessProbe:
                httpGet: {path: /api/gcs_healthz, port: dashboard}
                timeoutSeconds: 5
          volumes:
            {{- include "tastemaker.volumes" $common | nindent 12 }}
    {{- if $jobs.workers }}
    workerGroupSpecs:
      - groupName: workers
        replicas: {{ $jobs.workers }}
        minReplicas: {{ $jobs.workers }}
        maxReplicas: {{ $jobs.workers }}
        rayStartParams: {num-cpus: {{ $jobs.numCpus | quote }}}
        template:
          metadata:
            labels:
              {{- include "tastemaker.selector" $common | nindent 14 }}
          spec:
            {{- include "tastemaker.pod" $common | nindent 12 }}
            containers:
              - {{- include "tastemaker.ray.container" (merge (dict "name" "ray-worker") $common) | nindent 16 }}
                ports:
                  - {name: agent, containerPort: 52365}
                {{- include "tastemaker.ray.probes" (dict "path" "/api/local_raylet_healthz" "port" "agent") | nindent 16 }}
                readinessProbe:
                  httpGet: {path: /api/local_raylet_healthz, port: agent}
                  timeoutSeconds: 5
            volumes:
              {{- include "tastemaker.volumes" $common | nindent 14 }}
    {{- end }}
{{- end -}}
