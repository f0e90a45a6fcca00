"""What is to be certified: pure data, without torch, ray or network."""
