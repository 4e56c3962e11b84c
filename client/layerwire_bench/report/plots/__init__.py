"""The plots of a page, a question a file."""
