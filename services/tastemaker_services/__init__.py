"""What stays up: gateway, router, Serve deployments, stream consumers."""
