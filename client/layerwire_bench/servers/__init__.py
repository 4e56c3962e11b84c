"""What servers tell of themselves and of what they counted."""
