"""Where the pictures of Photo World come from: packages fetched by name and version."""
