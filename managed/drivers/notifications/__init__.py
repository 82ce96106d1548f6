"""How messages leave: by mail, and by signed calls of webhooks."""
