"""What several workflows do alike."""
