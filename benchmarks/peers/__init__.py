"""The same views made with other people's libraries, as their users write it."""
