"""What several tests need: real modules run as Ansible runs them, and real servers."""
