"""Methods and the loop that trains them: still to come, nothing here can be used yet."""
