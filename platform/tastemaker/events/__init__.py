"""Events: their schema, the log that they are appended to, the consumer that applies and archives them."""
