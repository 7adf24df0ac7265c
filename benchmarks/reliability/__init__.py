"""What happens to bad and to equivalent inputs."""
