"""Those who are compared: a program each, run in processes of its own."""
