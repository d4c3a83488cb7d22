#!/usr/bin/env bash
# The chart in the cluster of up.sh, a first version trained on the packaged MovieLens table, and some traffic for the dashboards.
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
fi

echo "waiting for the graph"
until in_admin versions --json | grep -q '"outcome": "answers"'; do sleep 5; done
in_admin doctor || true
for user in $(seq 1 100); do
  in_admin recommend "$user" >/dev/null
done
helm test tastemaker --kube-context kind-tastemaker --namespace tastemaker --timeout 5m

cat <<'TEXT'
Grafana:     kubectl --context kind-tastemaker -n monitoring port-forward svc/monitoring-grafana 3000:80, then http://127.0.0.1:3000
  user admin, its password:
             kubectl --context kind-tastemaker -n monitoring get secret monitoring-grafana -o jsonpath='{.data.admin-password}' | base64 -d
Gateway:     kubectl --context kind-tastemaker -n tastemaker port-forward svc/tastemaker-gateway 8700
TEXT
