"""The Playbooks port by ansible-runner."""
