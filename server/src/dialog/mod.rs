//! A conversation: the engine, which knows no protocol, and each protocol on it.
