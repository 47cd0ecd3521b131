"""Models behind HTTP: an OpenAI, TEI or vLLM server that gives vectors or a reranker's scores."""

from embedtrain.mining.endpoint.encoder import EndpointEncoder, open_encoder
from embedtrain.mining.endpoint.scorer import EndpointScorer, open_scorer

__all__ = ["EndpointEncoder", "EndpointScorer", "open_encoder", "open_scorer"]
