"""What is kept online, in Redis/Valkey: key layout, connections, the embedded server."""
