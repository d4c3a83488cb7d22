#!/usr/bin/env bash
# A kind cluster with KubeRay, Prometheus and Grafana, and our images in it. Needs docker, kind, helm and kubectl. Run it again
# after a change: what is there stays, images are built and loaded anew.
set -euo pipefail
cd "$(dirname "$0")/../.."
source k8s/versions.env
for tool in docker kind helm kubectl; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: see docs/deploy.md, What you need" >&2; exit 2; }
done

# `grep -q` would end before the writer: with pipefail that is a failure.
if ! kind get clusters | grep -x tastemaker >/dev/null; then
  kind create cluster --config k8s/kind/cluster.yaml --wait 180s
fi
context=(--kube-context kind-tastemaker)

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
for image in serve train; do
  docker build --file "k8s/images/Dockerfile.$image" --tag "tastemaker-$image:$version" .
  # Nothing of ours runs on the node that plans.
  kind load docker-image --name tastemaker --nodes tastemaker-worker "tastemaker-$image:$version"
done

kubectl --context kind-tastemaker apply -k k8s/overlays/dev
helm upgrade --install kuberay kuberay-operator "${context[@]}" --namespace kuberay-system --create-namespace --wait --timeout 5m \
  --repo "$KUBERAY_REPOSITORY" --version "$KUBERAY_VERSION" --values k8s/values/kuberay-operator.yaml
helm upgrade --install monitoring kube-prometheus-stack "${context[@]}" --namespace monitoring --create-namespace \
  --wait --timeout 10m --repo "$PROMETHEUS_REPOSITORY" --version "$PROMETHEUS_VERSION" \
  --values k8s/values/kube-prometheus-stack.yaml
