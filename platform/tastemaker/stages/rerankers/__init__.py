"""Stages that reorder ranked candidates, one idea to a file; `stages.reranking` puts them together."""
