"""The whole graph on a tiny bundle: real Valkey, MLflow store, Ray, HAProxy and HTTP; started once for all of these tests."""
