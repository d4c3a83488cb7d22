#!/usr/bin/env bash
# The chart in the cluster of up.sh, a first version trained on the packaged MovieLens table, and some traffic for the dashboards. Needs port 8700.
set -euo pipefail
cd "$(dirname "$0")/../.."
kubectl() { command kubectl --context kind-tastemaker --namespace tastemaker "$@"; }
in_admin() { kubectl exec deploy/tastemaker-admin -- tastemaker "$@"; }

# Not --wait: the gateway is ready once there is a champion.
helm upgrade --install tastemaker helm/tastemaker --kube-context kind-tastemaker --namespace tastemaker \
  --values helm/tastemaker/ci/minimal-values.yaml --values k8s/kind/demo-values.yaml
kubectl rollout status deploy/tastemaker-mlflow deploy/tastemaker-admin --timeout 10m

if ! in_admin bundles list --json | grep -q champion; then
  in_admin data import
  in_admin train movielens --quick
  in_admin publish movielens
  in_admin promote 1 --to champion --reason "the first version"
  # What users did in the table comes online while no consumer runs.
  kubectl scale deploy/tastemaker-consumer --replicas 0
  kubectl wait pod --for delete --selector app.kubernetes.io/instance=tastemaker,app.kubernetes.io/component=consumer --timeout 2m
  in_admin data load
  kubectl scale deploy/tastemaker-consumer --replicas 1
fi

echo "waiting for the graph"
until in_admin versions --json | grep -q '"outcome": "answers"'; do sleep 5; done
helm test tastemaker --kube-context kind-tastemaker --namespace tastemaker --timeout 5m --logs

echo "some traffic"
command kubectl --context kind-tastemaker --namespace tastemaker port-forward svc/tastemaker-gateway 8700 >/dev/null &
forward=$!
trap 'kill "$forward"' EXIT
key=$(kubectl get secret tastemaker-api-keys -o jsonpath='{.data.read-key}' | base64 -d)
until curl -fsS -o /dev/null http://127.0.0.1:8700/healthz 2>/dev/null; do sleep 1; done
for user in $(seq 1 300); do
  curl -fsS -o /dev/null -H "Authorization: Bearer $key" "http://127.0.0.1:8700/v1/recommendations/$user?k=10"
done

cat <<'TEXT'
Grafana:     kubectl --context kind-tastemaker -n monitoring port-forward svc/monitoring-grafana 3000:80, then http://127.0.0.1:3000
  user admin, its password:
             kubectl --context kind-tastemaker -n monitoring get secret monitoring-grafana -o jsonpath='{.data.admin-password}' | base64 -d
Gateway:     kubectl --context kind-tastemaker -n tastemaker port-forward svc/tastemaker-gateway 8700
TEXT
