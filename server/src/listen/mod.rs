//! Sockets in: listeners and the limits on clients.
