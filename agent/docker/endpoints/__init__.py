"""Follow the containers that run here, as other hosts need them."""
