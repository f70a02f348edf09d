"""Fixed prompts through the server: what the model does when nothing about the question has changed."""
