"""The web: REST, JSON-RPC and WebSocket on one Klein app."""
