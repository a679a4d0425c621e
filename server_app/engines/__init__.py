"""What carries messages between ServerApp and ClientApps."""
