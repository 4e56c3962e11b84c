"""What is sent: from words, shapes and files to calls that are ready to be made."""
