#!/usr/bin/env bash
# The chart in the cluster of up.sh, a first version trained on the packaged MovieLens table, and some traffic for the dashboards. Needs curl and port 8700.
set -euo pipefail
cd "$(dirname "$0")/../.."
kubectl() { command kubectl --context kind-tastemaker --namespace tastemaker "$@"; }
in_admin() { kubectl exec deploy/tastemaker-admin -- tastemaker "$@"; }
key_of() { kubectl get secret tastemaker-api-keys -o "jsonpath={.data.$1-key}" | base64 -d; }

# Not --wait: the gateway is ready once there is a champion.
helm upgrade --install tastemaker helm/tastemaker --kube-context kind-tastemaker --namespace tastemaker \
  --values helm/tastemaker/ci/minimal-values.yaml --values k8s/kind/demo-values.yaml
kubectl rollout status deploy/tastemaker-mlflow --timeout 10m
kubectl rollout status deploy/tastemaker-admin --timeout 10m

# `grep -q` would end before the writer: with pipefail that is a failure.
if ! in_admin bundles list --json | grep champion >/dev/null; then
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

echo "waiting for the graph, at most 15 minutes"
end=$((SECONDS + 900))
until in_admin versions --json | grep '"outcome": "answers"' >/dev/null; do
  if ((SECONDS > end)); then
    kubectl get rayservice,pods >&2
    echo "no gateway answers from the champion: see the events and logs of the pods above (kubectl -n tastemaker describe pod …)" >&2
    exit 1
  fi
  sleep 5
done
helm test tastemaker --kube-context kind-tastemaker --namespace tastemaker --timeout 5m --logs

echo "some traffic: lists, and a click on an item of each"
command kubectl --context kind-tastemaker --namespace tastemaker port-forward svc/tastemaker-gateway 8700 >/dev/null &
forward=$!
trap 'kill "$forward"' EXIT
read_key=$(key_of read)
ingest_key=$(key_of ingest)
until curl -fsS -o /dev/null http://127.0.0.1:8700/healthz 2>/dev/null; do
  kill -0 "$forward" || { echo "port 8700 cannot be forwarded: is it taken?" >&2; exit 1; }
  sleep 1
done
for turn in 1 2 3 4 5; do
  for user in $(seq 1 200); do
    answer=$(curl -fsS -H "Authorization: Bearer $read_key" "http://127.0.0.1:8700/v1/recommendations/$user?k=10")
    item=$(sed -n 's/.*"item_id": *"\([^"]*\)".*/\1/p' <<<"$answer")
    request=$(sed -n 's/.*"request_id": *"\([^"]*\)".*/\1/p' <<<"$answer")
    [[ -n "$item" ]] || continue
    curl -fsS -o /dev/null -H "Authorization: Bearer $ingest_key" -H 'Content-Type: application/json' http://127.0.0.1:8700/v1/events --data "{\"events\": [
      {\"event_id\": \"demo-$turn-$user-$request\", \"user_id\": \"$user\", \"item_id\": \"$item\", \"kind\": \"click\",
       \"timestamp_ms\": $(date +%s)000, \"request_id\": \"$request\"}]}"
  done
done

cat <<'TEXT'
Grafana:     kubectl --context kind-tastemaker -n monitoring port-forward svc/monitoring-grafana 3000:80, then http://127.0.0.1:3000, folder Tastemaker
  user admin, its password:
             kubectl --context kind-tastemaker -n monitoring get secret monitoring-grafana -o jsonpath='{.data.admin-password}' | base64 -d
Gateway:     kubectl --context kind-tastemaker -n tastemaker port-forward svc/tastemaker-gateway 8700
TEXT
