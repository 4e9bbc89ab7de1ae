"""What runs in the pods of the test; in a pod each file is mounted by itself."""
