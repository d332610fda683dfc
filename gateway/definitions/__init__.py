"""What backends say of their tools, prompts and resources, before an agent may read it. Pure."""
