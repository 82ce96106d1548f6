"""SSH: commands and files over held connections, and tunnels through OpenSSH."""
