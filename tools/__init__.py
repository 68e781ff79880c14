"""What developers of this project run; nothing of it is installed."""
