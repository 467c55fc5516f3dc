//! Plugin processes: spawning, the handshake, workers, supervision.
