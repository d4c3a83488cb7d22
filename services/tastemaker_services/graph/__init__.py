"""The Ray Serve graph: the gateway's replica, the stages as deployments or in the gateway's own process."""
