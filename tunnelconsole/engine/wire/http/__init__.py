"""HTTP/1.1 as a reverse proxy speaks it (RFC 9110, RFC 9112): heads, bodies, and the exchanges of one visitor."""
