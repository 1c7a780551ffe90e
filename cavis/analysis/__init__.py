"""Looking inside: what the embeddings and the context filter do."""
