"""restic on the provider's side: argv, output, its cryptography, and the driver that runs it."""
