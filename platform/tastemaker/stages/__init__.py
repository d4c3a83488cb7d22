"""The way of a request: retrieve, hydrate, rank, rerank, filter. Stages know nothing of Ray or HTTP."""
