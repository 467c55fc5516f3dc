//! What happened: the log.
