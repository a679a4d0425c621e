"""What a federation of real silos needs to start: certificates, kits, and a check at each silo."""
