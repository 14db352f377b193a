"""Reading slides at any scale, finding tissue, planning tiles."""
