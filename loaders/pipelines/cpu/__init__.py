"""Pipeline `threads` on a CPU: worker threads read, decode, plan and render."""
