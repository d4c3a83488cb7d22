"""The HTTP routes of `/v1`. What they answer, `gateway` decides."""
