"""Orders in which a stream is learned."""
